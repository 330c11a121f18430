"""Transformer blocks over [text | image] that also decode one image token at a time.

Legend: b rows, t tokens of a whole sequence, l of them text, m image tokens given, w
width, h heads, d width of a head, n = b*t. While decoding: p prompts, k candidates of
each, b = p*k rows, s slots of a cache (see `nn.grid_masks.cache_plan`).

What the text gives to attention is computed once a prompt and read by all of its
candidates; keys and values of image tokens are a row's own.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import grid_masks
from mmjax.nn.activation import activation
from mmjax.nn.attention import attend, softmax
from mmjax.nn.dense import Dense
from mmjax.nn.grid_masks import CachePlan
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm


class Memory(NamedTuple):
    """Keys and values of a layer: (p*h, l, d) of text, (b*h, s, d) of images."""

    k: jax.Array
    v: jax.Array


class At(NamedTuple):
    """Where in a layer's cache the token being decoded belongs, and what it reads."""

    slot: jax.Array  # int32 ()
    start: jax.Array  # int32 ()
    visible_s: jax.Array  # bool (window,)


def at(plan: CachePlan, index: jax.Array) -> At:
    """The place of image token `index`, int32 ()."""
    tables = (plan.slot_n, plan.start_n, plan.visible_ns)
    return At(*(jnp.asarray(table)[index] for table in tables))


def stored(plan: CachePlan, image: Memory, candidates: int) -> Memory:
    """The cache of p*k rows after the image tokens in `image`, (p, h, m, d)."""

    def place(x_phmd: jax.Array) -> jax.Array:
        p, h, m, d = x_phmd.shape
        shape = (p * candidates * h, plan.slots, d)
        if m == 0:
            return jnp.zeros(shape, x_phmd.dtype)
        owner_s = grid_masks.held_after(plan, m).clip(0)
        return jnp.repeat(x_phmd[:, :, owner_s], candidates, axis=0).reshape(shape)

    return Memory(place(image.k), place(image.v))


class CachedAttention(nn.Module):
    """Self-attention with a fused (w, 3w) kernel, as `nn.attention.SelfAttention`."""

    width: int
    heads: int
    std: float = 0.02
    out_std: float = 0.02
    dtype: str = "float32"

    def setup(self) -> None:
        w, zeros = self.width, nn.initializers.zeros
        self.qkv = Dense(3 * w, True, normal(self.std), zeros, self.dtype)
        self.out = Dense(w, True, normal(self.out_std), zeros, self.dtype)

    def __call__(
        self, x_nw: jax.Array, t: int, mask_tt: jax.Array
    ) -> tuple[jax.Array, Memory]:
        """Output (n, w) of whole rows of `t` tokens; keys and values (b, h, t, d)."""
        n, w = x_nw.shape
        qkv_bt3hd = self.qkv(x_nw).reshape(n // t, t, 3, self.heads, w // self.heads)
        q, k, v = qkv_bt3hd.transpose(2, 0, 3, 1, 4)
        y_bhtd = attend(q, k, v, mask_tt)
        return self.out(y_bhtd.transpose(0, 2, 1, 3).reshape(n, w)), Memory(k, v)

    def step(
        self, x_bw: jax.Array, text: Memory, image: Memory, at: At
    ) -> tuple[jax.Array, Memory]:
        """Output (b, w) of one image token a row, and the cache with it inside."""
        b, w = x_bw.shape
        h, window = self.heads, at.visible_s.shape[0]
        d, p = w // h, text.k.shape[0] // h
        qkv_3n1d = self.qkv(x_bw).reshape(b, 3, h, d).transpose(1, 0, 2, 3)
        q_n1d, k_n1d, v_n1d = qkv_3n1d.reshape(3, b * h, 1, d)

        def write(cache_nsd: jax.Array, x_n1d: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice(cache_nsd, x_n1d, (0, at.slot, 0))

        def read(cache_nsd: jax.Array) -> jax.Array:
            if window == cache_nsd.shape[1]:
                return cache_nsd
            return jax.lax.dynamic_slice_in_dim(cache_nsd, at.start, window, axis=1)

        def of_prompts(x_n1d: jax.Array) -> jax.Array:
            """Rows (b*h, 1, .) as (p*h, k, .)."""
            x_pkhd = x_n1d.reshape(p, b // p, h, -1)
            return x_pkhd.swapaxes(1, 2).reshape(p * h, b // p, -1)

        def of_rows(x_mkd: jax.Array) -> jax.Array:
            """Rows (p*h, k, .) as (b*h, 1, .)."""
            x_phkd = x_mkd.reshape(p, h, b // p, -1)
            return x_phkd.swapaxes(1, 2).reshape(b * h, 1, -1)

        image = Memory(write(image.k, k_n1d), write(image.v, v_n1d))
        q_n1d = q_n1d * d**-0.5
        text_n1l = of_rows(jnp.einsum("mkd,mld->mkl", of_prompts(q_n1d), text.k))
        own_n1s = jnp.einsum("nqd,nsd->nqs", q_n1d, read(image.k))
        own_n1s = jnp.where(at.visible_s, own_n1s, jnp.finfo(jnp.float32).min)
        both_n1t = softmax(jnp.concatenate([text_n1l, own_n1s], -1), None, self.dtype)
        text_n1l, own_n1s = both_n1t[..., :-window], both_n1t[..., -window:]
        y_n1d = of_rows(jnp.einsum("mkl,mld->mkd", of_prompts(text_n1l), text.v))
        y_n1d += jnp.einsum("nqs,nsd->nqd", own_n1s, read(image.v))
        return self.out(y_n1d.reshape(b, w)), image


class CachedBlock(nn.Module):
    """`x += attention(norm(x)); x += mlp(norm(x))`, whole rows or one token a row.

    Kernels are N(0, std^2), those that write to the residual stream N(0, out_std^2),
    biases zero.
    """

    width: int
    heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    std: float = 0.02
    out_std: float = 0.02
    dtype: str = "float32"

    def setup(self) -> None:
        hidden, zeros = int(self.mlp_ratio * self.width), nn.initializers.zeros
        self.norm_1 = LayerNorm(dtype=self.dtype)
        self.attn = CachedAttention(
            self.width, self.heads, self.std, self.out_std, self.dtype
        )
        self.norm_2 = LayerNorm(dtype=self.dtype)
        self.fc = Dense(hidden, True, normal(self.std), zeros, self.dtype)
        self.proj = Dense(self.width, True, normal(self.out_std), zeros, self.dtype)

    def _mlp(self, x: jax.Array) -> jax.Array:
        return x + self.proj(activation(self.act)(self.fc(self.norm_2(x))))

    def __call__(self, x_nw: jax.Array, t: int, mask_tt: jax.Array) -> jax.Array:
        """Flat (b*t, w) of rows of `t` tokens, in and out."""
        return self.prefill(x_nw, t, mask_tt)[0]

    def prefill(
        self, x_nw: jax.Array, t: int, mask_tt: jax.Array
    ) -> tuple[jax.Array, Memory]:
        """As a call, with the keys and values (b, h, t, d) of all tokens."""
        y_nw, memory = self.attn(self.norm_1(x_nw), t, mask_tt)
        return self._mlp(x_nw + y_nw), memory

    def step(
        self, x_bw: jax.Array, text: Memory, image: Memory, at: At
    ) -> tuple[jax.Array, Memory]:
        """One image token a row, (b, w), and the cache with it inside."""
        y_bw, image = self.attn.step(self.norm_1(x_bw), text, image, at)
        return self._mlp(x_bw + y_bw), image
