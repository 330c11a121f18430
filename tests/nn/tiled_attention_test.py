"""Attention in tiles against plain attention under the whole mask, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import grid_masks
from mmjax.nn.attention import attend
from mmjax.nn.tiled_attention import attend_masked, attend_tiles

N, D, TEXT, GRID = 3, 4, 5, 4
T = TEXT + GRID**2


def arrays(t: int = T, count: int = 4) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(N, t, D)), jnp.float32) for _ in range(count)]


def tiled(kind: str, size: int):
    mask_tt = grid_masks.sequence_mask(kind, TEXT, GRID, 3)
    tiles = grid_masks.tiles(mask_tt, TEXT, size)
    masks = [jnp.asarray(grid_masks.cut(mask_tt, tile)) for tile in tiles]
    return mask_tt, lambda q, k, v: attend_tiles(q, k, v, tiles, masks)


@pytest.mark.parametrize("kind", grid_masks.KINDS)
@pytest.mark.parametrize("size", [1, 3, 16])
def test_tiles_give_the_values_and_gradients_of_the_whole(kind: str, size: int):
    mask_tt, by_tiles = tiled(kind, size)
    *qkv, cotangent = arrays()

    def whole(q, k, v):
        return attend(q[:, None], k[:, None], v[:, None], jnp.asarray(mask_tt))[:, 0]

    def value_and_grads(f):
        return jax.value_and_grad(
            lambda *qkv: (f(*qkv) * cotangent).sum(), argnums=(0, 1, 2)
        )(*qkv)

    got, want = value_and_grads(by_tiles), value_and_grads(whole)
    np.testing.assert_allclose(by_tiles(*qkv), whole(*qkv), atol=1e-6)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=1e-5), got, want)


@pytest.mark.parametrize("kind", grid_masks.KINDS)
@pytest.mark.parametrize("given", [0, 1, 6])
def test_the_rest_of_a_sequence_changes_nothing(kind: str, given: int):
    _, by_tiles = tiled(kind, 4)
    q, k, v, _ = arrays()
    t = TEXT + given
    got = by_tiles(q[:, :t], k[:, :t], v[:, :t])
    np.testing.assert_allclose(got, by_tiles(q, k, v)[:, :t], atol=1e-6)


def test_tiles_leave_out_what_no_query_sees():
    def area(kind: str, size: int) -> int:
        mask_tt = grid_masks.sequence_mask(kind, TEXT, GRID)
        return sum(
            grid_masks.cut(mask_tt, tile).size
            for tile in grid_masks.tiles(mask_tt, TEXT, size)
        )

    assert area("full", 16) == TEXT**2 + 16 * T
    assert area("full", 4) == TEXT**2 + 4 * (4 * TEXT + 4 + 8 + 12 + 16)
    assert area("row", 4) == TEXT**2 + 4 * (4 * TEXT + 4 + 8 + 8 + 8)


def test_large_logits_are_safe():
    q, k, v, _ = arrays(count=4)
    mask_tt = jnp.tri(T, dtype=bool)
    grads = jax.grad(lambda q: attend_masked(1e4 * q, k, v, mask_tt).sum())(q)
    assert np.isfinite(grads).all()


def test_half_precision_keeps_its_type_and_is_near():
    mask_tt, by_tiles = tiled("row", 4)
    *qkv, _ = arrays()
    half = [x.astype(jnp.bfloat16) for x in qkv]
    y, vjp = jax.vjp(by_tiles, *half)
    assert {y.dtype, *(g.dtype for g in vjp(y))} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(y.astype(jnp.float32), by_tiles(*qkv), atol=0.05)
