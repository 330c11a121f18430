"""Attention against plain numpy, and the one-query shortcut against the long way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import attention
from mmjax.nn.attention import AttentionPool, SelfAttention

B, T, W, H = 3, 7, 16, 4


def softmax_np(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention_np(q_bqw, k_btw, v_btw, causal=False):
    """Multi-head attention, one head and row at a time, in float64."""
    out = np.zeros(q_bqw.shape)
    d = W // H
    for b in range(q_bqw.shape[0]):
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            logits = q_bqw[b, :, part] @ k_btw[b, :, part].T / np.sqrt(d)
            if causal:
                logits = np.where(np.tri(*logits.shape, dtype=bool), logits, -np.inf)
            out[b, :, part] = softmax_np(logits) @ v_btw[b, :, part]
    return out


def random_like(params):
    """The same tree with every leaf N(0, .3^2), biases included."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), params
    )


def inputs():
    x_btw = jax.random.normal(jax.random.key(0), (B, T, W))
    return x_btw, np.asarray(x_btw, np.float64)


def to_np(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def self_attention(**fields):
    """(apply(params, x_btw, token=None), random params): rows and tokens apart."""
    module = SelfAttention(H, **fields)
    x_nw = jnp.zeros((B * T, W))
    shapes = jax.eval_shape(lambda key: module.init(key, x_nw, T), jax.random.key(0))

    def apply(params, x_btw, token=None):
        y = module.apply(params, x_btw.reshape(-1, W), T, token)
        return y.reshape(x_btw.shape) if token is None else y

    return apply, random_like(shapes)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_numpys(causal):
    x_btw, x_np = inputs()
    apply, params = self_attention(causal=causal)
    p = to_np(params["params"])
    q, k, v = np.split(x_np @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, axis=-1)
    want = attention_np(q, k, v, causal) @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(jax.jit(apply)(params, x_btw), want, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("token", [0, "per_row"])
def test_one_token_is_picked_from_the_full_output(causal, token):
    x_btw, _ = inputs()
    index_b = jnp.array([0, T - 1, 3])
    if token == "per_row":
        token = index_b
    apply, params = self_attention(causal=causal)

    def out_and_grads(f):
        def loss(params, x_btw):
            y = f(params, x_btw)
            return jnp.square(y).sum(), y

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x_btw)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        out_and_grads(lambda params, x: apply(params, x, token)),
        out_and_grads(lambda params, x: apply(params, x)[jnp.arange(B), token]),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_kept_maps_are_those_that_mix_the_values(causal):
    x_btw, x_np = inputs()
    module = SelfAttention(H, causal=causal)
    params = self_attention(causal=causal)[1]
    call = functools.partial(module.apply, params, x_btw.reshape(-1, W), T)
    y_bw, kept = jax.jit(lambda: call(2, mutable=[attention.MAPS]))()
    np.testing.assert_allclose(y_bw, call(2), atol=1e-5)
    map_bhqt = kept[attention.MAPS]["weights"]
    p = to_np(params["params"])
    v_btw = (x_np @ p["qkv"]["kernel"] + p["qkv"]["bias"])[..., 2 * W :]
    v_bthd = v_btw.reshape(B, T, H, W // H)
    mixed_btw = np.einsum("bhqt,bthd->bqhd", map_bhqt, v_bthd).reshape(B, T, W)
    want = mixed_btw @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(call(), want.reshape(-1, W), atol=1e-5)
    assert set(module.init(jax.random.key(0), x_btw.reshape(-1, W), T)) == {"params"}


def test_attention_pool_is_numpys():
    x_btw, x_np = inputs()
    module = AttentionPool(H)
    params = random_like(jax.jit(module.init)(jax.random.key(0), x_btw))
    p = to_np(params["params"])
    x = np.concatenate([x_np.mean(1, keepdims=True), x_np], 1) + p["position_embedding"]
    q = x[:, :1] @ p["query"]["kernel"] + p["query"]["bias"]
    kv = x @ p["key_value"]["kernel"] + p["key_value"]["bias"]
    want = attention_np(q, *np.split(kv, 2, axis=-1))[:, 0]
    np.testing.assert_allclose(jax.jit(module.apply)(params, x_btw), want, atol=1e-5)


@pytest.mark.parametrize("t", [5, 24])  # fewer and more than a head's width
@pytest.mark.parametrize("kind", ["none", "queries", "rows"])
def test_gradients_are_autodiffs(t, kind):
    b, h, q, d = 2, 2, 7, 8
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = (b, h, q, d), (b, h, t, d), (b, h, t, d), (b, h, q, d)
    *args, weight = (
        2 * jax.random.normal(key, x) for key, x in zip(keys, shapes, strict=False)
    )
    shape = {"none": (1, 1), "queries": (q, t), "rows": (b * h, 1, t)}[kind]
    mask = jax.random.bernoulli(keys[4], 0.6, shape) if kind != "none" else None
    if mask is not None:
        mask = mask.at[0].set(False)  # sees nothing: the mean of all values

    def plain(q_bhqd, k_bhtd, v_bhtd):
        logits = jnp.einsum("bhqd,bhtd->bhqt", q_bhqd, k_bhtd) / d**0.5
        if mask is not None:
            of_all = mask.reshape(b, h, 1, t) if kind == "rows" else mask
            logits = jnp.where(of_all, logits, jnp.finfo(jnp.float32).min)
        return jnp.einsum("bhqt,bhtd->bhqd", jax.nn.softmax(logits), v_bhtd)

    def loss(fn):
        return lambda *args: (weight * fn(*args)).sum()

    want = jax.grad(loss(plain), (0, 1, 2))(*args)
    own = functools.partial(attention.attend, mask_qt=mask)
    got = jax.grad(loss(own), (0, 1, 2))(*args)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_half_precision_has_its_logits_in_float32():
    """What the softmax sees are float32 sums, not bfloat16 ones widened."""

    def products(fn, *args):
        eqns = jax.make_jaxpr(fn)(*args).eqns
        if inner := [e.params["call_jaxpr"] for e in eqns if "call_jaxpr" in e.params]:
            eqns = [eqn for closed in inner for eqn in closed.eqns]
        return [e.outvars[0].aval.dtype for e in eqns if e.primitive.name == DOT]

    DOT, half, full = "dot_general", jnp.bfloat16, jnp.float32
    x_bhtd = jnp.ones((1, 2, 3, 8), half)
    assert products(attention.attend, *[x_bhtd] * 3) == [full, half]
    x_btw, kv = x_bhtd[:, 0], (jnp.ones((8, 16), half), jnp.ones(16, half))
    one = functools.partial(attention.attend_one, kv=kv, heads=2)
    assert products(one, x_btw[:, 0], x_btw) == [half, full, half, half]
    grads = jax.grad(lambda *x: attention.attend(*x).sum(), (0, 1, 2))(*[x_bhtd] * 3)
    assert all(g.dtype == half for g in grads)


def test_half_precision_keeps_its_softmax_in_float32():
    x_btw = inputs()[0].astype("bfloat16")
    apply, params = self_attention(dtype="bfloat16")
    jaxpr = jax.make_jaxpr(apply)(params, x_btw)
    exps = [line for line in str(jaxpr).splitlines() if " exp " in line]
    assert exps and all("f32" in line.split("=")[0] for line in exps)
    assert jaxpr.out_avals[0].dtype == jnp.bfloat16
