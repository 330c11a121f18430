"""Transformer blocks over [text | image], and the same decoding token by token.

Legend: b rows, t tokens of a whole sequence, l of them text, m image tokens given, w
width, f hidden width, h heads, d width of a head, z = b*t. While decoding: p prompts, k
candidates of each, b = p*k rows, s slots of a cache (see `nn.grid_masks.cache_plan`).

What the text gives to attention is computed once a prompt and read by all of its
candidates; keys and values of image tokens are a row's own. A step reads every weight
for a few rows alone, so it is as fast as memory, if nothing else gets in its way:

- Rows are columns, (w, b), and kernels transposed: with so few rows XLA's CPU products
  spend their time on re-arranging the larger operand, least in this form (by a fifth).
- Caches are (b*h, s, d) and products over them have one batch axis. With more axes, or
  an axis of pages, XLA copies every cache whole at each step (four times the step).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import grid_masks
from mmjax.nn.activation import activation
from mmjax.nn.attention import dot, keep_map, keeps_maps, softmax
from mmjax.nn.dense import Dense
from mmjax.nn.grid_masks import CachePlan, Tile
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.tiled_attention import attend_tiles, joined


class Memory(NamedTuple):
    """Keys and values of a layer: (p*h, l, d) of text, (b*h, s, d) of images."""

    k: jax.Array
    v: jax.Array


class CachedAttention(nn.Module):
    """Self-attention with a fused (w, 3w) kernel, as `nn.attention.SelfAttention`.

    Weights are kept where `nn.attention.MAPS` is mutable.
    """

    heads: int
    tiles: tuple[Tile, ...]
    std: float = 0.02
    out_std: float = 0.02
    dtype: str = "float32"
    attention: str = "auto"

    @nn.compact
    def __call__(
        self, x_zw: jax.Array, t: int, masks: Sequence[jax.Array]
    ) -> tuple[jax.Array, Memory]:
        """Output (z, w) of rows of `t` tokens; keys and values (b, h, t, d)."""
        z, w = x_zw.shape
        b, h = z // t, self.heads
        zeros = nn.initializers.zeros
        qkv = Dense(3 * w, True, normal(self.std), zeros, self.dtype, name="qkv")
        out = Dense(w, True, normal(self.out_std), zeros, self.dtype, name="out")
        qkv_3bhtd = qkv(x_zw).reshape(b, t, 3, h, w // h).transpose(2, 0, 3, 1, 4)
        if keeps_maps(self):
            keep_map(self, *qkv_3bhtd[:2], joined(self.tiles, masks, t))
        q, k, v = qkv_3bhtd.reshape(3, b * h, t, w // h)
        how = {"heads": h, "attention": self.attention}
        y_bhtd = attend_tiles(q, k, v, self.tiles, masks, **how).reshape(b, h, t, -1)
        memory = Memory(*(x_ntd.reshape(b, h, t, -1) for x_ntd in (k, v)))
        return out(y_bhtd.transpose(0, 2, 1, 3).reshape(z, w)), memory


class CachedBlock(nn.Module):
    """`x += attention(norm(x)); x += mlp(norm(x))` on flat (z, w), `t` tokens a row.

    Kernels are N(0, std^2), those that write to the residual stream N(0, out_std^2),
    biases zero. Returns keys and values (b, h, t, d) as well.
    """

    heads: int
    tiles: tuple[Tile, ...]
    mlp_ratio: float = 4.0
    act: str = "gelu"
    std: float = 0.02
    out_std: float = 0.02
    dtype: str = "float32"
    attention: str = "auto"

    @nn.compact
    def __call__(
        self, x_zw: jax.Array, t: int, masks: Sequence[jax.Array]
    ) -> tuple[jax.Array, Memory]:
        width, zeros = x_zw.shape[1], nn.initializers.zeros
        std = self.std, self.out_std
        attn = CachedAttention(
            self.heads, self.tiles, *std, self.dtype, self.attention, name="attn"
        )
        hidden = int(self.mlp_ratio * width)
        fc = Dense(hidden, True, normal(self.std), zeros, self.dtype, name="fc")
        proj = Dense(width, True, normal(self.out_std), zeros, self.dtype, name="proj")
        y_zw, memory = attn(LayerNorm(dtype=self.dtype, name="norm_1")(x_zw), t, masks)
        x_zw = x_zw + y_zw
        y_zw = LayerNorm(dtype=self.dtype, name="norm_2")(x_zw)
        return x_zw + proj(activation(self.act)(fc(y_zw))), memory


class Affine(NamedTuple):
    """`kernel @ x + bias`, of columns."""

    kernel: jax.Array  # (out, in)
    bias: jax.Array  # (out, 1), float32

    def __call__(self, x_wb: jax.Array, dtype: str | None = None) -> jax.Array:
        """In the type of x, or summed and given in `dtype`."""
        y = jnp.matmul(self.kernel, x_wb, preferred_element_type=dtype)
        return y + self.bias.astype(y.dtype)


def affine(
    dense: Mapping[str, jax.Array],
    dtype: str,
    norm: Mapping[str, jax.Array] | None = None,
) -> Affine:
    """The parameters of a `Dense`, after those of a norm where there is one."""
    kernel = dense["kernel"]
    bias = dense["bias"] if "bias" in dense else jnp.zeros(kernel.shape[1])
    if norm is not None:
        kernel, bias = norm["scale"][:, None] * kernel, bias + norm["bias"] @ kernel
    return Affine(kernel.T.astype(dtype), bias[:, None])


def normalize(x_wb: jax.Array) -> jax.Array:
    """Columns of mean 0 and variance 1: `LayerNorm` less its parameters."""
    x32 = x_wb.astype(jnp.float32)
    centred = x32 - x32.mean(0, keepdims=True)
    var = jnp.square(centred).mean(0, keepdims=True)
    return (centred * jax.lax.rsqrt(var + LayerNorm.eps)).astype(x_wb.dtype)


class DecodeBlock(NamedTuple):
    """The weights of a `CachedBlock` for decoding, its norms inside of them."""

    qkv: Affine  # (3w, w)
    out: Affine  # (w, w)
    fc: Affine  # (f, w)
    proj: Affine  # (w, f)


def decode_block(params: Mapping[str, Any], heads: int, dtype: str) -> DecodeBlock:
    """From the parameters of a `CachedBlock`."""
    attn = params["attn"]
    qkv = affine(attn["qkv"], "float32", params["norm_1"])
    w = len(qkv.bias) // 3
    scale = jnp.ones((3 * w, 1)).at[:w].set((w // heads) ** -0.5)
    return DecodeBlock(
        Affine((scale * qkv.kernel).astype(dtype), scale * qkv.bias),
        affine(attn["out"], dtype),
        affine(params["fc"], dtype, params["norm_2"]),
        affine(params["proj"], dtype),
    )


def text_memory(memory: Memory, size: int) -> Memory:
    """The first `size` tokens of keys and values (p, h, t, d), as `decode` wants."""
    d = memory.k.shape[-1]
    return Memory(*(x_phtd[:, :, :size].reshape(-1, size, d) for x_phtd in memory))


def image_memory(memory: Memory, size: int, plan: CachePlan, candidates: int) -> Memory:
    """The cache of p*k rows from the tokens after `size` in (p, h, t, d)."""

    def place(x_phtd: jax.Array) -> jax.Array:
        p, h, t, d = x_phtd.shape
        shape = (p * candidates * h, plan.slots, d)
        if t == size:
            return jnp.zeros(shape, x_phtd.dtype)
        owner_s = grid_masks.held_after(plan, t - size).clip(0)
        x_phsd = x_phtd[:, :, size + owner_s]
        return jnp.repeat(x_phsd, candidates, axis=0).reshape(shape)

    return Memory(*(place(x) for x in memory))


def decode(
    block: DecodeBlock,
    x_wb: jax.Array,
    text: Memory,
    image: Memory,
    plan: CachePlan,
    index: jax.Array,
    *,
    heads: int,
    act: str,
) -> tuple[jax.Array, Memory]:
    """What the block makes of image token `index`, int32 (), of every row.

    Returns (w, b), and the cache with this token inside.
    """
    y_wb, image = _decode_attention(
        block.qkv(normalize(x_wb)), text, image, plan, index, heads
    )
    x_wb = x_wb + block.out(y_wb)
    y_fb = activation(act)(block.fc(normalize(x_wb)))
    return x_wb + block.proj(y_fb), image


def _decode_attention(
    qkv_wb: jax.Array,
    text: Memory,
    image: Memory,
    plan: CachePlan,
    index: jax.Array,
    heads: int,
) -> tuple[jax.Array, Memory]:
    """Mixed values (w, b) of stacked queries, keys and values (3w, b)."""
    b, h, window = qkv_wb.shape[1], heads, plan.window
    d, p = qkv_wb.shape[0] // (3 * h), len(text.k) // h
    qkv_3bhd = qkv_wb.reshape(3, h, d, b).transpose(0, 3, 1, 2)
    q, k, v = qkv_3bhd.reshape(3, b * h, 1, d)
    slot, start = (jnp.asarray(x_n)[index] for x_n in (plan.slot_n, plan.start_n))

    def put(cache_nsd: jax.Array, x_n1d: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cache with x in its slot, and the part of it that is read."""
        update, cut = jax.lax.dynamic_update_slice, jax.lax.dynamic_slice_in_dim
        if window == plan.slots:
            cache_nsd = update(cache_nsd, x_n1d, (0, slot, 0))
            return cache_nsd, cache_nsd
        # Into the part, and the part into the cache: the other way round, XLA reads
        # the cache both before and after the write, so copies it.
        part_nsd = update(cut(cache_nsd, start, window, 1), x_n1d, (0, slot - start, 0))
        return update(cache_nsd, part_nsd, (0, start, 0)), part_nsd

    def by_prompt(x_n1d: jax.Array) -> jax.Array:
        """(b*h, 1, d) to (p*h, k, d)."""
        x_pkhd = x_n1d.reshape(p, b // p, h, -1)
        return x_pkhd.swapaxes(1, 2).reshape(p * h, b // p, -1)

    def by_row(x_mkd: jax.Array) -> jax.Array:
        """(p*h, k, d) to (b*h, 1, d)."""
        x_phkd = x_mkd.reshape(p, h, b // p, -1)
        return x_phkd.swapaxes(1, 2).reshape(b * h, 1, -1)

    (cache_k, k_nsd), (cache_v, v_nsd) = put(image.k, k), put(image.v, v)
    text_n1l = by_row(dot("mkd,mld->mkl", by_prompt(q), text.k))
    own_n1s = dot("nqd,nsd->nqs", q, k_nsd)
    visible_s = jnp.asarray(plan.visible_ns)[index]
    own_n1s = jnp.where(visible_s, own_n1s, jnp.finfo(own_n1s.dtype).min)
    both_n1t = jnp.concatenate([text_n1l, own_n1s], axis=-1)
    both_n1t = softmax(both_n1t, None, str(qkv_wb.dtype))
    text_n1l, own_n1s = both_n1t[..., :-window], both_n1t[..., -window:]
    y_n1d = by_row(jnp.einsum("mkl,mld->mkd", by_prompt(text_n1l), text.v))
    y_n1d += jnp.einsum("nqs,nsd->nqd", own_n1s, v_nsd)
    return y_n1d.reshape(b, h * d).T, Memory(cache_k, cache_v)
