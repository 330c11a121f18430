"""Attention under a mask, a tile of queries at a time, with its own gradient.

Legend: n = rows * heads, t tokens, q query and k key tokens of a tile, d width of a
head.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmjax.nn import attention_kernels
from mmjax.nn.attention import dot, over_queries
from mmjax.nn.grid_masks import Tile


def attend_tiles(
    q_ntd: jax.Array,
    k_ntd: jax.Array,
    v_ntd: jax.Array,
    tiles: Sequence[Tile],
    masks: Sequence[jax.Array],
    *,
    heads: int = 1,
    attention: str = "auto",
) -> jax.Array:
    """Scaled dot-product attention (n, t, d), causal and masked.

    What a tile leaves out is skipped by every kernel: the masks are as sparse as tiles.

    Args:
      tiles: from `grid_masks.tiles` for t tokens or more; the rest is left out.
      masks: bool (q, k) of each, from `grid_masks.cut`.
      heads: of which n is a multiple.
      attention: the kernel, see `mmjax.nn.attention_kernels`.
    """
    (n, t, d), parts = q_ntd.shape, []
    scaled_ntd = q_ntd * d**-0.5
    for tile, mask_qk in zip(tiles, masks, strict=True):
        if tile.start >= t:
            break
        stop, last = min(tile.stop, t), max(tile.text, min(tile.last, t))
        keys = tile.text + last - tile.first if last > tile.first else tile.text
        k_nkd, v_nkd = (_seen(x, tile.text, tile.first, last) for x in (k_ntd, v_ntd))
        mask_qk = mask_qk[: stop - tile.start, :keys]
        size = n // heads, heads, stop - tile.start, d
        shape = jax.ShapeDtypeStruct(size, q_ntd.dtype)
        kernel = attention_kernels.choose(attention, shape, keys)
        if kernel in attention_kernels.PLATFORM:
            qkv = (q_ntd[:, tile.start : stop], k_nkd, v_nkd)
            qkv = (x.reshape(-1, heads, *x.shape[1:]) for x in qkv)
            y_bhqd = attention_kernels.fused(kernel, *qkv, mask_qt=mask_qk)
            parts.append(y_bhqd.reshape(n, -1, d))
            continue
        reference = kernel == "reference"
        run = attend_masked if reference else jax.checkpoint(attend_masked)
        with jax.named_scope(kernel):
            y_nqd = run(scaled_ntd[:, tile.start : stop], k_nkd, v_nkd, mask_qk)
        parts.append(y_nqd)
    return jnp.concatenate(parts, axis=1)


def _seen(x_ntd: jax.Array, text: int, first: int, last: int) -> jax.Array:
    if first == text:
        return x_ntd[:, :last]
    return jnp.concatenate([x_ntd[:, :text], x_ntd[:, first:last]], axis=1)


@jax.custom_vjp
def attend_masked(
    q_nqd: jax.Array, k_nkd: jax.Array, v_nkd: jax.Array, mask_qk: jax.Array
) -> jax.Array:
    """`softmax(q k', where mask) v`, (n, q, d), logits and sums in float32.

    Every query must see a key. The gradient is written out: it keeps the exponentials,
    unnormalised, and divides (q, d) where differentiation would divide (q, k), which
    saves a quarter of the passes over the largest arrays there are.
    """
    return _forward(q_nqd, k_nkd, v_nkd, mask_qk)[0]


def _forward(
    q_nqd: jax.Array, k_nkd: jax.Array, v_nkd: jax.Array, mask_qk: jax.Array
) -> tuple[jax.Array, tuple]:
    dtype = q_nqd.dtype
    logits_nqk = dot("nqd,nkd->nqk", q_nqd, k_nkd)
    most_nq1 = jnp.where(mask_qk, logits_nqk, -jnp.inf).max(-1, keepdims=True)
    e_nqk = jnp.where(mask_qk, jnp.exp(logits_nqk - most_nq1), 0.0)
    sum_nq1 = e_nqk.sum(-1, keepdims=True)
    e_nqk = e_nqk.astype(dtype)
    y_nqd = (dot("nqk,nkd->nqd", e_nqk, v_nkd) / sum_nq1).astype(dtype)
    return y_nqd, (q_nqd, k_nkd, v_nkd, e_nqk, sum_nq1, y_nqd)


def _backward(saved: tuple, grad_nqd: jax.Array) -> tuple:
    q_nqd, k_nkd, v_nkd, e_nqk, sum_nq1, y_nqd = saved
    dtype = q_nqd.dtype
    grad_nqd = grad_nqd.astype(jnp.float32) / sum_nq1
    mean_nq1 = (grad_nqd * y_nqd).sum(-1, keepdims=True)
    grad_nqd = grad_nqd.astype(dtype)
    by_e_nqk = dot("nqd,nkd->nqk", grad_nqd, v_nkd)
    by_logits_nqk = (e_nqk * (by_e_nqk - mean_nq1)).astype(dtype)
    by_q_nqd = dot("nqk,nkd->nqd", by_logits_nqk, k_nkd)
    by_k_nkd = over_queries(by_logits_nqk, q_nqd)
    by_v_nkd = over_queries(e_nqk, grad_nqd)
    return by_q_nqd.astype(dtype), by_k_nkd.astype(dtype), by_v_nkd.astype(dtype), None


attend_masked.defvjp(_forward, _backward)


def joined(tiles: Sequence[Tile], masks: Sequence[jax.Array], t: int) -> jax.Array:
    """The mask, bool (t, t), that `grid_masks.cut` made the tiles' masks of."""
    mask_tt = jnp.zeros((t, t), bool)
    for tile, mask_qk in zip(tiles, masks, strict=True):
        keys = jnp.asarray([*range(tile.text), *range(tile.first, tile.last)])
        mask_tt = mask_tt.at[tile.start : tile.stop, keys].set(mask_qk)
    return mask_tt
