"""The DiT against its definition in numpy; its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attend, dense, filled, silu

from mmjax.errors import UserError
from mmjax.models import denoiser

HEADS, SIDE, PATCH, WIDTH = 2, 6, 2, 16
NET = {"kind": "dit", "patch": PATCH, "width": WIDTH, "depth": 2, "heads": HEADS}


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def heads(q, k, v):
    parts = (np.split(x, HEADS, axis=-1) for x in (q, k, v))
    return np.concatenate([attend(*one) for one in zip(*parts, strict=True)], -1)


def near(x_tw, kernel_9w):
    """Every patch's sum over the nine around it, zeros outside."""
    side = SIDE // PATCH
    x_hhw, y_hhw = x_tw.reshape(side, side, -1), np.zeros((side, side, WIDTH))
    for row in range(side):
        for column in range(side):
            for k, (i, j) in enumerate((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
                r, c = row + i, column + j
                if 0 <= r < side and 0 <= c < side:
                    y_hhw[row, column] += kernel_9w[k] * x_hhw[r, c]
    return y_hhw.reshape(x_tw.shape)


def block(x, time_w, context_lw, p):
    if "near" in p:
        x = x + near(norm(x), p["near"]["kernel"])
    change = np.split(dense(time_w, p["modulation"]), 6)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = change
    qkv = dense(norm(x) * (1 + scale_1) + shift_1, p["attn"]["qkv"])
    x = x + gate_1 * dense(heads(*np.split(qkv, 3, -1)), p["attn"]["out"])
    if context_lw is not None:
        q, kv = dense(norm(x), p["cross"]["q"]), dense(context_lw, p["cross"]["kv"])
        x = x + dense(heads(q, *np.split(kv, 2, -1)), p["cross"]["out"])
    y = dense(norm(x) * (1 + scale_2) + shift_2, p["mlp"]["fc"])
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    return x + gate_2 * dense(y, p["mlp"]["proj"])


def places():
    """Sines and cosines of columns, then of rows."""
    rate = 10_000.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    row, column = np.divmod(np.arange((SIDE // PATCH) ** 2), SIDE // PATCH)
    parts = [f(x[:, None] * rate) for x in (column, row) for f in (np.sin, np.cos)]
    return np.concatenate(parts, -1)


def reference(p, x_ggc, t, context_lc, vector_e):
    side, c = SIDE // PATCH, x_ggc.shape[-1]
    cuts = [
        x_ggc[r : r + PATCH, q : q + PATCH].reshape(-1)
        for r in range(0, SIDE, PATCH)
        for q in range(0, SIDE, PATCH)
    ]
    x = dense(np.stack(cuts), p["patch_embedding"]) + places()
    angles = t * 10_000.0 ** (-np.arange(128) / 128)
    time = dense(np.concatenate([np.cos(angles), np.sin(angles)]), p["time_1"])
    time = dense(silu(time), p["time_2"])
    if vector_e is not None:
        time = time + dense(vector_e, p["vector"])
    time = silu(time)
    if context_lc is not None:
        context_lc = dense(context_lc, p["context"])
    for i in range(2):
        x = block(x, time, context_lc, p[f"block_{i}"])
    shift, scale = np.split(dense(time, p["modulation"]), 2)
    y = dense(norm(x) * (1 + scale) + shift, p["out"])
    y = y.reshape(side, side, PATCH, PATCH, c).transpose(0, 2, 1, 3, 4)
    return y.reshape(SIDE, SIDE, c)


@pytest.mark.parametrize("more", [{}, {"near": True}])
@pytest.mark.parametrize("conditioned", [True, False])
def test_the_network_is_its_definition(more, conditioned):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    t_b = np.array([3.0, 700.5], np.float32)
    context = mask = vector = None
    if conditioned:
        context = rng.normal(size=(2, 4, 5)).astype(np.float32)
        mask = np.array([[True] * 4, [True, True, False, False]])
        vector = rng.normal(size=(2, 7)).astype(np.float32)
    net = denoiser.build(NET | more, grid=SIDE, channels=3)
    params = filled(net, x, t_b, context, mask, vector)["params"]
    got = jax.jit(net.apply)({"params": params}, x, t_b, context, mask, vector)
    own = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    for i in range(2):
        seen = context[i][mask[i]] if conditioned else None
        whole = vector[i] if conditioned else None
        want = reference(own, x[i], float(t_b[i]), seen, whole)
        np.testing.assert_allclose(got[i], want, atol=2e-4 * np.abs(want).max())


def test_a_fresh_network_gives_zero():
    net = denoiser.build(NET, grid=SIDE, channels=3)
    x, t_b = jnp.ones((1, SIDE, SIDE, 3)), jnp.ones(1)
    assert not net.apply(net.init(jax.random.key(0), x, t_b), x, t_b).any()


@pytest.mark.parametrize(
    "more, words",
    [
        ({"patch": 4}, "patch is 4.*6 a side"),
        ({"heads": 3}, "16.*3 heads"),
        ({"width": 18}, "18.*multiple of 4"),
        ({"depht": 2}, "depht.*depth"),
        ({"kind": "dti"}, "'dti'.*dit"),
    ],
)
def test_numbers_that_do_not_fit(more, words):
    with pytest.raises(UserError, match=words):
        denoiser.build(NET | more, grid=SIDE, channels=3)
