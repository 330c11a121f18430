"""Transformer blocks that read an image: whole captions, and word by word.

Legend: b rows, t tokens of a row, n cells of an image, w width, h heads, d width of a
head. While decoding: p images, k rows of each, b = p*k; z = b*h.

What an image gives to attention is computed once and read by all of its rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.activation import activation
from mmjax.nn.attention import CrossAttention, SelfAttention, dot, softmax
from mmjax.nn.norm import LayerNorm, layer_norm
from mmjax.nn.transformer import Mlp

Params = Mapping[str, Any]


class Cache(NamedTuple):
    """Keys and values of a block: of words (b, h, t, d), of cells (p, h, n, d)."""

    k: jax.Array
    v: jax.Array


class CaptionBlock(nn.Module):
    """Causal attention, attention to the cells, MLP; each after a norm, each added."""

    heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x_zw: jax.Array, t: int, cells_bnw: jax.Array, kept: Sequence[jax.Array]
    ) -> jax.Array:
        """(b*t, w). kept: what each of the three branches is multiplied with."""

        def norm(x: jax.Array, name: str) -> jax.Array:
            return LayerNorm(dtype=self.dtype, name=name)(x)

        attn = SelfAttention(self.heads, causal=True, dtype=self.dtype, name="attn")
        cross = CrossAttention(self.heads, dtype=self.dtype, name="cross")
        hidden = int(self.mlp_ratio * x_zw.shape[-1])
        mlp = Mlp(hidden, self.act, dtype=self.dtype, name="mlp")
        x_zw = x_zw + attn(norm(x_zw, "norm_1"), t) * kept[0]
        x_zw = x_zw + cross(norm(x_zw, "norm_cross"), cells_bnw) * kept[1]
        return x_zw + mlp(norm(x_zw, "norm_2")) * kept[2]


def cell_memory(params: Params, cells_pnw: jax.Array, heads: int) -> Cache:
    """Keys and values of the cells, for a `CaptionBlock` with these parameters."""
    kv_pnw = _dense(params["cross"]["kv"], cells_pnw)
    kv_pn2hd = kv_pnw.reshape(*cells_pnw.shape[:2], 2, heads, -1)
    return Cache(*kv_pn2hd.transpose(2, 0, 3, 1, 4))


def decode(
    params: Params,
    x_bw: jax.Array,
    cache: Cache,
    cells: Cache,
    index: jax.Array,
    *,
    heads: int,
    act: str,
) -> tuple[jax.Array, Cache, jax.Array]:
    """What a `CaptionBlock` makes of word number `index`, int32 (), of every row.

    Returns:
      (b, w), the cache with this word inside, and the attention to the cells (b, n),
      the mean over heads.
    """
    (b, w), p, dtype = x_bw.shape, len(cells.k), str(x_bw.dtype)

    def norm(x: jax.Array, name: str) -> jax.Array:
        scale, bias = params[name]["scale"], params[name]["bias"]
        return layer_norm(x, scale, bias, LayerNorm.eps).astype(dtype)

    qkv = _dense(params["attn"]["qkv"], norm(x_bw, "norm_1"))
    q, *kv = qkv.reshape(b, 3, heads, 1, -1).transpose(1, 0, 2, 3, 4)
    put = jax.lax.dynamic_update_slice
    cache = Cache(*map(lambda c, x: put(c, x, (0, 0, index, 0)), cache, kv))
    visible_t = jnp.arange(cache.k.shape[2]) <= index
    y, _ = _attend(q, cache, visible_t)
    x_bw = x_bw + _dense(params["attn"]["out"], y.reshape(b, w))
    q_bw = _dense(params["cross"]["q"], norm(x_bw, "norm_cross"))
    q_phkd = q_bw.reshape(p, b // p, heads, -1).swapaxes(1, 2)
    y_phkd, probs_phkn = _attend(q_phkd, cells, None)
    y_bw = y_phkd.swapaxes(1, 2).reshape(b, w)
    x_bw = x_bw + _dense(params["cross"]["out"], y_bw)
    hidden = _dense(params["mlp"]["fc"], norm(x_bw, "norm_2"))
    x_bw = x_bw + _dense(params["mlp"]["proj"], activation(act)(hidden))
    return x_bw, cache, probs_phkn.mean(1).reshape(b, -1)


def _attend(
    q_bhqd: jax.Array, memory: Cache, visible_t: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Mixed values (b, h, q, d) and the weights (b, h, q, t)."""
    b, h, q, d = q_bhqd.shape
    q_zqd = q_bhqd.reshape(b * h, q, d) * d**-0.5  # one batch axis: see nn.attention
    k_ztd, v_ztd = (x.reshape(b * h, -1, d) for x in memory)
    probs_zqt = softmax(dot("zqd,ztd->zqt", q_zqd, k_ztd), visible_t, str(q_zqd.dtype))
    mixed_zqd = jnp.einsum("zqt,ztd->zqd", probs_zqt, v_ztd)
    return mixed_zqd.reshape(q_bhqd.shape), probs_zqt.reshape(b, h, q, -1)


def _dense(params: Params, x: jax.Array) -> jax.Array:
    return x @ params["kernel"].astype(x.dtype) + params["bias"].astype(x.dtype)
