"""DiT: a transformer over the patches of noised rows (Peebles and Xie 2023).

Blocks of self-attention and an MLP, modulated by the time ("adaLN-Zero"); between them,
where there are texts, the patches read them by cross-attention without modulation
(PixArt-alpha, Chen et al. 2023). Every block ends in a zero, and so does the network:
at first it gives 0.

Legend: b rows, g side of the grid, c channels, t patches of a row, n = b*t, w width,
l tokens of a text.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn import divide, timestep
from mmjax.nn.attention import CrossAttention, SelfAttention
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import layer_norm
from mmjax.nn.transformer import Mlp, remat

EPS = 1e-6
_ZEROS = nn.initializers.zeros


def grid_features(grid: int, width: int) -> np.ndarray:
    """Fixed sines and cosines of column and row, half of the width each, (t, w)."""
    rate_h = 1.0 / 10000 ** (np.arange(width // 4) / (width / 4))
    row_t, column_t = np.divmod(np.arange(grid * grid), grid)
    angles = [x_t[:, None] * rate_h for x_t in (column_t, row_t)]
    parts = [f(angle_th) for angle_th in angles for f in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _norm(x_nw: jax.Array) -> jax.Array:
    """LayerNorm without parameters: the modulation has them."""
    w = x_nw.shape[-1]
    return layer_norm(x_nw, jnp.ones(w), jnp.zeros(w), EPS)


class Near(nn.Module):
    """`sum_k x_k * kernel_k` over the 3 x 3 patches k around each, flat (n, w).

    A depthwise convolution, from zero. As shifted products it is fast on CPUs too.
    """

    @nn.compact
    def __call__(self, x_nw: jax.Array, t: int) -> jax.Array:
        side, w = math.isqrt(t), x_nw.shape[-1]
        kernel_9w = self.param("kernel", _ZEROS, (9, w), jnp.float32)
        x_bhhw = x_nw.reshape(-1, side, side, w)
        wide = jnp.pad(x_bhhw, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [(i, j) for i in range(3) for j in range(3)]
        y = sum(
            wide[:, i : i + side, j : j + side] * k_w
            for (i, j), k_w in zip(shifts, kernel_9w, strict=True)
        )
        return y.reshape(x_nw.shape)


class Block(nn.Module):
    """Self-attention, cross-attention and MLP on flat (n, w), t patches a row."""

    heads: int
    mlp_ratio: float = 4.0
    near: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x_nw: jax.Array,
        t: int,
        time_bw: jax.Array,
        context_blw: jax.Array | None,
        mask_bl: jax.Array | None,
    ) -> jax.Array:
        w = x_nw.shape[-1]
        if self.near:
            x_nw = x_nw + Near(name="near")(_norm(x_nw), t)
        change_b6w = Dense(6 * w, True, _ZEROS, _ZEROS, name="modulation")(time_bw)
        parts = jnp.split(jnp.repeat(change_b6w, t, axis=0), 6, axis=-1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts

        y = (_norm(x_nw) * (1 + scale_1) + shift_1).astype(self.dtype)
        attention = SelfAttention(self.heads, dtype=self.dtype, name="attn")
        x_nw = x_nw + gate_1 * attention(y, t)
        if context_blw is not None:
            cross = CrossAttention(
                self.heads, out_init=_ZEROS, dtype=self.dtype, name="cross"
            )
            x_nw = x_nw + cross(_norm(x_nw), context_blw, mask_bl)
        y = (_norm(x_nw) * (1 + scale_2) + shift_2).astype(self.dtype)
        mlp = Mlp(int(self.mlp_ratio * w), "gelu_tanh", dtype=self.dtype, name="mlp")
        return x_nw + gate_2 * mlp(y)


class DiT(nn.Module):
    """Build one by `build`. The context and the vector are of any width.

    Fields: see `Spec`. channels: of the rows.
    """

    channels: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    near: bool = False
    remat: str = "none"
    dtype: str = "float32"

    def check_grid(self, grid: int, where: str) -> None:
        """UserError for rows that patches do not cover."""
        if grid % self.patch:
            raise UserError(
                f"{where}.patch is {self.patch} and the rows are {grid} a side: use a "
                f"patch that divides {grid}"
            )

    @nn.compact
    def __call__(
        self,
        x_bggc: jax.Array,
        t_b: jax.Array,
        context_blw: jax.Array | None = None,
        mask_bl: jax.Array | None = None,
        vector_be: jax.Array | None = None,
    ) -> jax.Array:
        b, g, _, c = x_bggc.shape
        side, w = g // self.patch, self.width
        cuts = x_bggc.reshape(b, side, self.patch, side, self.patch, c)
        cuts = cuts.transpose(0, 1, 3, 2, 4, 5).reshape(b * side * side, -1)
        x_nw = Dense(w, name="patch_embedding")(cuts)
        x_nw = x_nw + jnp.tile(grid_features(side, w), (b, 1))
        time = Dense(w, True, normal(0.02), name="time_1")(timestep.sinusoids(t_b, 256))
        time = Dense(w, True, normal(0.02), name="time_2")(nn.silu(time))
        if vector_be is not None:
            time = time + Dense(w, True, normal(0.02), name="vector")(vector_be)
        time_bw = nn.silu(time)
        if context_blw is not None:
            context_blw = Dense(w, name="context")(context_blw)
        block = remat(Block, self.remat, static_argnums=(2,))
        for i in range(self.depth):
            layer = block(
                self.heads, self.mlp_ratio, self.near, self.dtype, name=f"block_{i}"
            )
            x_nw = layer(x_nw, side * side, time_bw, context_blw, mask_bl)
        change_b2w = Dense(2 * w, True, _ZEROS, _ZEROS, name="modulation")(time_bw)
        shift, scale = jnp.split(
            jnp.repeat(change_b2w, side * side, axis=0), 2, axis=-1
        )
        x_nw = _norm(x_nw) * (1 + scale) + shift
        y = Dense(self.patch**2 * c, True, _ZEROS, _ZEROS, name="out")(x_nw)
        y = y.reshape(b, side, side, self.patch, self.patch, c)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, g, g, c).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.net` of kind "dit"; the defaults are DiT-XL/2's.

    patch: numbers a side of a patch. width, depth, heads, mlp_ratio: of the
    transformer. near: whether each block begins with a depthwise 3 x 3 convolution,
    from which outlines are learned sooner. remat: see `mmjax.nn.transformer.REMAT`.
    dtype: of its compute.
    """

    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    near: bool = False
    remat: str = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        schema.at_least(1, self, "patch", "width", "depth", "heads")
        if self.width % 4:
            raise ValueError(f"width is {self.width}: use a multiple of 4")


def build(fields: Mapping[str, Any], where: str, *, channels: int) -> DiT:
    """The module of a spec; errors name keys below `where`."""
    spec = schema.from_mapping(Spec, fields, where)
    divide.check(f"{where}.width", spec.width, spec.heads, "heads")
    return DiT(channels=channels, **dataclasses.asdict(spec))
