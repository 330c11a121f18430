"""Decoders of captions: against numpy, and whole captions against word by word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.errors import UserError
from mmjax.models import caption

B, M, N, D, V = 3, 5, 4, 6, 11
SIZES = {"image": {}, "image_size": 0, "vocab_size": V, "context": M}
DECODERS = {
    "lstm": {"width": 8},
    "soft": {"width": 8, "word_width": 6},
    "hard": {"width": 8},
    "transformer": {"width": 8, "heads": 2, "depth": 2},
    "transformer pooled": {"width": 8, "heads": 2, "depth": 1, "queries": 3},
}


def make(name, **more):
    """(model, parameters of which none is zero or one, cells, ids)."""
    decoder = {"kind": name.split()[0]} | DECODERS[name] | more
    model = caption.build(decoder, **SIZES)
    rng = np.random.default_rng(0)
    cells = jnp.asarray(rng.normal(size=(B, 2, 2, D)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, V, (B, M)), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), cells, ids)["params"]
    params = jax.tree.map(
        lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), shapes
    )
    return model, params, cells, ids


@pytest.mark.parametrize(
    "name",
    [
        "lstm",
        "soft",
        "transformer",
        pytest.param("hard", marks=pytest.mark.long),
        pytest.param("transformer pooled", marks=pytest.mark.long),
    ],
)
def test_word_by_word_is_the_whole(name):
    """So no word sees those after it."""
    model, params, cells, ids = make(name)
    k = 2  # two rows of every image, the second one's words in reverse
    both = jnp.stack([ids, ids[:, ::-1]], 1).reshape(B * k, M)

    @jax.jit
    def whole_and_steps():
        apply = functools.partial(model.apply, {"params": params})
        whole = apply(jnp.repeat(cells, k, axis=0), both)
        memory, state = apply(cells, k, method="begin")

        def body(state, at):
            logits_bv, state, seen = apply(memory, state, *at, method="step")
            return state, (logits_bv, seen)

        _, steps = jax.lax.scan(body, state, (both.T, jnp.arange(M)))
        return whole, steps

    (logits, look), (step_logits, seen) = whole_and_steps()
    np.testing.assert_allclose(jnp.swapaxes(step_logits, 0, 1), logits, atol=1e-4)
    if name == "lstm":
        assert look is None and seen is None
        return
    seen = np.swapaxes(seen, 0, 1)
    np.testing.assert_allclose(seen.sum(-1), 1, atol=1e-5)
    if look is not None:
        np.testing.assert_allclose(seen, look.weight, atol=1e-5)
    if name == "hard":
        assert set(np.unique(seen)) == {0, 1}


def test_soft_attention_in_numpy():
    """Xu et al. 2015, section 3.1.2 and 4.2.1, one row and word after the other."""
    model, params, cells, ids = make("soft")
    got, look = jax.jit(model.apply)({"params": params}, cells, ids)
    p, sigmoid = jax.tree.map(np.asarray, params["decoder"]), scipy.special.expit

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name].get("bias", 0)

    for b in range(B):
        a = np.asarray(cells[b]).reshape(N, D)
        spread = np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        a = (a - a.mean(-1, keepdims=True)) / spread
        a = a * p["norm"]["scale"] + p["norm"]["bias"]
        h, c = np.split(np.tanh(dense("start", a.mean(0))), 2)
        a = dense("cells", a)
        for m in range(M):
            word = p["token_embedding"][ids[b, m]]
            score = dense("score", np.tanh(dense("cell_key", a) + dense("query", h)))
            alpha = scipy.special.softmax(score[:, 0])
            z = sigmoid(dense("gate", h)) * (alpha @ a)
            gates = dense("word", word) + dense("recur", h) + dense("glimpse", z)
            i, f, o, g = np.split(gates, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            deep = word + dense("from_state", h) + dense("from_glimpse", z)
            want = dense("head", np.tanh(deep))
            np.testing.assert_allclose(got[b, m], want, atol=1e-4)
            np.testing.assert_allclose(look.weight[b, m], alpha, atol=1e-5)


@pytest.mark.long
def test_draws_follow_the_rows():
    """Dropout and drawn cells of a row are the same, whatever rows are beside it."""
    model, params, cells, ids = make("hard", dropout=0.3)
    keys = jax.random.split(jax.random.key(1), B)

    @jax.jit
    def both():
        apply = functools.partial(model.apply, {"params": params})
        return apply(cells, ids, keys), apply(cells[1:2], ids[1:2], keys[1:2])

    (whole, look), (part, _) = both()
    np.testing.assert_allclose(part[0], whole[1], atol=1e-5)
    mean = np.asarray((look.log_place == 0).all(-1))  # rows that take the mean
    weight = np.asarray(look.weight)
    assert ((weight == 0) | (weight == 1)).all((1, 2)).tolist() == (~mean).tolist()


@pytest.mark.parametrize(
    ("decoder", "more", "what"),
    [
        ({"kind": "lsdm"}, {}, "decoder.kind is 'lsdm'; did you mean 'lstm'"),
        ({"kind": "soft", "heads": 2}, {}, "decoder 'soft' has no 'heads'"),
        ({"kind": "lstm", "attention": "soft"}, {}, "has no 'attention'"),
        (
            {"kind": "soft"},
            {"image": {"kind": "conv"}, "image_size": 32},
            "of kind 'conv', which gives no cells: use kind vit",
        ),
    ],
)
def test_what_is_wrong_is_said(decoder, more, what):
    with pytest.raises(UserError, match=what):
        caption.build(decoder, **SIZES | more)
