"""Transformer blocks over [text | image] that also decode one image token at a time.

Legend: b rows, t tokens of a whole sequence, l of them text, m image tokens given, w
width, h heads, d width of a head, n = b*t. While decoding: p prompts, k candidates of
each, b = p*k rows, c pages and s slots of a cache (see `nn.grid_masks.cache_plan`).

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
    """Keys and values of a layer: (p, h, l, d) of text, (c, b, h, s, d) of images."""

    k: jax.Array
    v: jax.Array


class At(NamedTuple):
    """Where in a layer's cache the token being decoded belongs."""

    page: jax.Array  # int32 ()
    slot: jax.Array  # int32 ()
    visible_s: jax.Array  # bool (s,)


def at(plan: CachePlan, index: jax.Array) -> At:
    """The place of image token `index`, int32 ()."""
    tables = (plan.page_n, plan.slot_n, plan.visible_ns)
    return At(*(jnp.asarray(table)[index] for table in tables))


def stored(plan: CachePlan, image: Memory, candidates: int) -> Memory:
    """The cache (c, p*k, h, s, d) after the image tokens in `image`, (p, h, m, d)."""
    owner_cs = grid_masks.held_after(plan, image.k.shape[2])

    def place(x_phmd: jax.Array) -> jax.Array:
        p, h, m, d = x_phmd.shape
        if m == 0:
            shape = (plan.pages, p * candidates, h, plan.slots, d)
            return jnp.zeros(shape, x_phmd.dtype)
        x_cphsd = jnp.moveaxis(x_phmd[:, :, owner_cs.clip(0)], 2, 0)
        return jnp.repeat(x_cphsd, candidates, axis=1)

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
        p, h, size, d = text.k.shape
        q_bhd, k_bhd, v_bhd = jnp.moveaxis(self.qkv(x_bw).reshape(b, 3, h, d), 1, 0)

        def write(cache_cbhsd: jax.Array, x_bhd: jax.Array) -> jax.Array:
            place = (at.page, 0, 0, at.slot, 0)
            return jax.lax.dynamic_update_slice(
                cache_cbhsd, x_bhd[None, :, :, None], place
            )

        image = Memory(write(image.k, k_bhd), write(image.v, v_bhd))
        q_bhd = q_bhd * d**-0.5
        q_phkd = q_bhd.reshape(p, b // p, h, d).swapaxes(1, 2)
        text_phkl = jnp.einsum("phkd,phld->phkl", q_phkd, text.k)
        image_bhs = jnp.einsum("bhd,bhsd->bhs", q_bhd, image.k[at.page])
        image_bhs = jnp.where(at.visible_s, image_bhs, jnp.finfo(jnp.float32).min)
        both = (text_phkl.swapaxes(1, 2).reshape(b, h, size), image_bhs)
        probs_bht = softmax(jnp.concatenate(both, -1), None, self.dtype)
        text_phkl = probs_bht[..., :size].reshape(p, b // p, h, size).swapaxes(1, 2)
        y_phkd = jnp.einsum("phkl,phld->phkd", text_phkl, text.v)
        y_bhd = y_phkd.swapaxes(1, 2).reshape(b, h, d)
        y_bhd += jnp.einsum("bhs,bhsd->bhd", probs_bht[..., size:], image.v[at.page])
        return self.out(y_bhd.reshape(b, w)), image


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
