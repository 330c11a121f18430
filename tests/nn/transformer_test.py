"""Depth, pooling and rematerialisation change the cost, not the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.nn.transformer import REMAT, Transformer

B, T, W = 2, 6, 16
TOKEN_B = jnp.array([3, 5])


def transformer(**kwargs):
    return Transformer(**dict(depth=3, heads=4, causal=True, init_depth=3) | kwargs)


def x_btw():
    return jax.random.normal(jax.random.key(1), (B, T, W))


def params_of(module):
    """Random parameters of the right shapes, biases included, without compiling."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x_btw())["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes
    )


def close(a, b, **kwargs):
    tolerance = dict(rtol=1e-5, atol=1e-5) | kwargs
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def out_and_grads(module, params, token=None):
    """Output, and gradients of a scalar of it by parameters and input."""

    def loss(params, x):
        y = module.apply({"params": params}, x, token)
        return jnp.square(y).mean(), y

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (by_params, by_x), y = run(params, x_btw())
    return y, by_params, by_x


def stack_blocks(params: dict, depth: int) -> dict:
    """Parameters of an unrolled `Transformer` as those of a scanned one."""
    if depth == 1:
        return params
    names = [f"block_{i}" for i in range(depth - 1)]
    blocks = jax.tree.map(lambda *x: jnp.stack(x), *(params[n] for n in names))
    return {"blocks": blocks} | {k: v for k, v in params.items() if k not in names}


def unstack_blocks(params: dict, depth: int) -> dict:
    """Parameters of a scanned `Transformer` as those of an unrolled one."""
    if depth == 1:
        return params
    rest = {k: v for k, v in params.items() if k != "blocks"}
    parts = {
        f"block_{i}": jax.tree.map(lambda x, i=i: x[i], params["blocks"])
        for i in range(depth - 1)
    }
    return parts | rest


@pytest.mark.parametrize(("depth", "token"), [(1, None), (3, None), (3, TOKEN_B)])
def test_scanned_equals_unrolled(depth, token):
    unrolled, scanned = transformer(depth=depth), transformer(depth=depth, scan=True)
    params = params_of(unrolled)
    stacked = stack_blocks(params, depth)
    shapes = jax.eval_shape(lambda: params_of(scanned))
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, shapes)
    close(unstack_blocks(stacked, depth), params, rtol=0, atol=0)
    y, by_params, by_x = out_and_grads(unrolled, params, token)
    want = y, stack_blocks(by_params, depth), by_x
    close(out_and_grads(scanned, stacked, token), want)


def test_remat_keeps_the_gradients():
    params = params_of(transformer())
    want = out_and_grads(transformer(), params)
    for policy in REMAT:
        if policy != "none":
            close(out_and_grads(transformer(remat=policy), params), want)
    y, by_params, by_x = out_and_grads(
        transformer(remat="full", scan=True), stack_blocks(params, 3)
    )
    close((y, unstack_blocks(by_params, 3), by_x), want)


def test_pooled_token_is_the_full_outputs():
    module = transformer()
    params = params_of(module)
    apply = jax.jit(module.apply)
    full = apply({"params": params}, x_btw())
    close(apply({"params": params}, x_btw(), TOKEN_B), full[jnp.arange(B), TOKEN_B])


def test_causal_by_gradient():
    module = transformer()
    params = params_of(module)

    def of_token(x, t):
        return module.apply({"params": params}, x)[:, t].sum()

    grad = jax.jit(jax.grad(of_token))
    for t in range(T):
        grad_btw = grad(x_btw(), t)
        assert not np.any(grad_btw[:, t + 1 :])
        assert np.all(np.abs(grad_btw[:, : t + 1]).sum(-1) > 0)


@pytest.mark.parametrize("scan", [False, True])
def test_clip_text_initialisation(scan):
    width, depth = 256, 4
    module = transformer(depth=depth, init_depth=depth, scan=scan)
    x = jnp.zeros((1, 2, width))
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    for block in params.values():
        std = jax.tree.map(lambda x: np.std(x), block)
        assert std["attn"]["qkv"]["kernel"] == pytest.approx(width**-0.5, rel=0.02)
        proj = (2 * depth * width) ** -0.5
        assert std["attn"]["out"]["kernel"] == pytest.approx(proj, rel=0.02)
        assert std["mlp"]["fc"]["kernel"] == pytest.approx(
            (2 * width) ** -0.5, rel=0.02
        )
        assert std["mlp"]["proj"]["kernel"] == pytest.approx(proj, rel=0.02)
        assert std["attn"]["qkv"]["bias"] == std["attn"]["out"]["bias"] == 0


def test_torch_default_initialisation():
    width = 256
    module = transformer(depth=1, init_depth=0)
    x = jnp.zeros((1, 2, width))
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    bound = jax.tree.map(lambda x: np.abs(x).max(), params["block_0"])
    # Xavier over the fused (3w, w) matrix; the rest U(+-fan_in^-1/2).
    assert bound["attn"]["qkv"]["kernel"] == pytest.approx(
        (6 / (4 * width)) ** 0.5, rel=0.01
    )
    assert bound["attn"]["out"]["kernel"] == pytest.approx(width**-0.5, rel=0.01)
    assert bound["mlp"]["fc"]["kernel"] == pytest.approx(width**-0.5, rel=0.01)
    assert bound["mlp"]["proj"]["kernel"] == pytest.approx(
        (4 * width) ** -0.5, rel=0.01
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"remat": "dot"}, "'dots'"),
        ({"heads": 3}, "width 16 must split over 3 heads: use 15"),
        ({"act": "quickgelu"}, "'quick_gelu'"),
    ],
)
def test_bad_fields_name_the_fix(fields, message):
    with pytest.raises(UserError, match=message):
        params_of(transformer(**fields))
