"""The UNet of latent diffusion and Stable Diffusion: a denoiser of images or latents.

Residual blocks that see the time step (Ho et al. 2020, Dhariwal & Nichol 2021), and
transformers that attend to all positions and to a context, such as a text's states
(Rombach et al. 2022, section 3.3). The defaults are Stable Diffusion 1's numbers.

Legend: b rows, h w positions, c channels or the width of a context, l context tokens,
e width of the time embedding, t time step or, of attention, tokens; n = b*t.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn import convnet, divide, timestep, transformer
from mmjax.nn.activation import gelu, silu
from mmjax.nn.attention import CrossAttention, SelfAttention
from mmjax.nn.conv import Conv
from mmjax.nn.dense import Dense
from mmjax.nn.norm import GroupNorm, LayerNorm

EPS, EPS_ATTENTION = 1e-5, 1e-6  # of the group norms, in all of the originals
_ZEROS = nn.initializers.zeros


class Block(nn.Module):
    """`skip(x) + conv(silu(norm(conv(silu(norm(x))) + dense(time))))`, 3x3 each.

    The last convolution starts at zero (Dhariwal & Nichol 2021), so the block starts as
    `skip`.
    """

    features: int
    groups: int = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, time_be: jax.Array) -> jax.Array:
        y = x_bhwc
        for i, init in ((1, None), (2, _ZEROS)):
            y = GroupNorm(self.groups, EPS, self.dtype, name=f"norm_{i}")(y)
            conv = convnet.Conv(
                self.features, dtype=self.dtype, kernel_init=init, name=f"conv_{i}"
            )
            y = conv(silu(y))
            if i == 1:
                time = Dense(self.features, dtype=self.dtype, name="time")(time_be)
                y = y + time[:, None, None]
        if x_bhwc.shape[-1] != self.features:
            x_bhwc = Dense(self.features, dtype=self.dtype, name="skip")(x_bhwc)
        return x_bhwc + y


class TransformerBlock(nn.Module):
    """`x += attend(norm(x)); x += attend(norm(x), context); x += mlp(norm(x))`.

    On flat (n, c), `t` tokens a row; without a context the second is left out. The MLP
    is `dense(a * gelu(b))`, (a, b) of width 4c each (Shazeer 2020, GEGLU).
    """

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x_nc: jax.Array,
        t: int,
        context_blc: jax.Array | None,
        mask_bl: jax.Array | None,
    ) -> jax.Array:
        width = x_nc.shape[-1]

        def norm(name: str) -> jax.Array:
            return LayerNorm(dtype=self.dtype, name=name)(x_nc)

        attention = SelfAttention(
            self.heads, dtype=self.dtype, qkv_bias=False, name="attention"
        )
        x_nc = x_nc + attention(norm("norm_1"), t)
        if context_blc is not None:
            cross = CrossAttention(
                self.heads, use_bias=False, dtype=self.dtype, name="cross"
            )
            x_nc = x_nc + cross(norm("norm_2"), context_blc, mask_bl)
        both = Dense(8 * width, dtype=self.dtype, name="fc")(norm("norm_3"))
        value, gate = jnp.split(both, 2, axis=-1)
        return x_nc + Dense(width, dtype=self.dtype, name="proj")(value * gelu(gate))


class GridTransformer(nn.Module):
    """`x + dense(blocks(dense(norm(x))))` over all positions; the last starts at 0."""

    heads: int
    blocks: int = 1
    groups: int = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x_bhwc: jax.Array,
        context_blc: jax.Array | None,
        mask_bl: jax.Array | None,
    ) -> jax.Array:
        _, h, w, c = x_bhwc.shape
        y = GroupNorm(self.groups, EPS_ATTENTION, self.dtype, name="norm")(x_bhwc)
        y = Dense(c, dtype=self.dtype, name="proj_in")(y.reshape(-1, c))
        for i in range(self.blocks):
            block = TransformerBlock(self.heads, self.dtype, name=f"block_{i}")
            y = block(y, h * w, context_blc, mask_bl)
        out = Dense(
            c, kernel_init=_ZEROS, bias_init=_ZEROS, dtype=self.dtype, name="proj_out"
        )
        return x_bhwc + out(y).reshape(x_bhwc.shape)


@dataclasses.dataclass
class Numbers:
    """What a config says of a UNet; the defaults are Stable Diffusion 1's.

    width: channels of the first level. mult: of each level, as multiples of width;
      from one to the next the side is halved.
    depth: residual blocks a level on the way down; on the way up there is one more.
    attention: the levels (0 is the finest) whose every block is followed by a
      transformer. Where there are any, the coarsest grid's middle has one as well.
    heads: of attention. head_width: where it is not 0, the width of a head in their
      place (Stable Diffusion 2's 64), so that wider levels have more heads.
    blocks: of a transformer. groups: of the group norms.
    remat: of every block and transformer, see `nn.transformer.remat`.
    dtype: of compute; parameters, softmax, norms and the result are float32.
    """

    width: int = 320
    mult: tuple[int, ...] = (1, 2, 4, 4)
    depth: int = 2
    attention: tuple[int, ...] = (0, 1, 2)
    heads: int = 8
    head_width: int = 0
    blocks: int = 1
    groups: int = 32
    remat: str = "none"
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """Sides of an image or latent are multiples of it."""
        return 2 ** (len(self.mult) - 1)

    def heads_at(self, level: int) -> int:
        """Heads of attention at a level."""
        if not self.head_width:
            return self.heads
        return self.width * self.mult[level] // self.head_width

    def __post_init__(self) -> None:
        sizes = "width", "depth", "heads", "blocks", "groups"
        schema.at_least(1, self, *sizes)
        schema.at_least(0, self, "head_width")
        if not self.mult or min(self.mult) < 1:
            raise ValueError(f"mult is {self.mult}: use positive numbers, one a level")
        levels = len(self.mult)
        for level in self.attention:
            if not 0 <= level < levels:
                raise ValueError(
                    f"attention names level {level} of {levels}: use 0 to {levels - 1}"
                )
        for level, mult in enumerate(self.mult):
            width, name = self.width * mult, f"width {self.width} x mult {mult} ="
            divide.check(name, width, self.groups, "groups")
            if level in self.attention or (self.attention and level == levels - 1):
                by, parts = self.heads, "heads"
                if self.head_width:
                    by, parts = self.head_width, "channels a head (head_width)"
                divide.check(name, width, by, parts)


class UNet(Numbers, nn.Module):
    """Fields: those of `Numbers`, and `channels` of the image or latent."""

    channels: int = 4

    def __post_init__(self) -> None:
        Numbers.__post_init__(self)
        nn.Module.__post_init__(self)

    def check_grid(self, grid: int, where: str) -> None:
        """UserError for a side of images or latents that the levels do not divide."""
        if grid % self.factor:
            levels = len(self.mult)
            raise UserError(
                f"{where}.mult has {levels} levels, each half the side of the one "
                f"before, and the rows are {grid} a side: use rows of a multiple of "
                f"{self.factor}, or fewer levels"
            )

    @nn.compact
    def __call__(
        self,
        x_bhwc: jax.Array,
        t_b: jax.Array,
        context_blc: jax.Array | None = None,
        mask_bl: jax.Array | None = None,
        vector_be: jax.Array | None = None,
    ) -> jax.Array:
        """What stands for the noise in x, float32 (b, h, w, channels).

        Args:
          x_bhwc: noised images or latents.
          t_b: time steps, 0 to 1000, whole or not.
          context_blc: tokens that every transformer attends to.
          mask_bl: which of them; None is all.
          vector_be: what is added to the time embedding, after a linear map: a class'
            or a whole text's vector.
        """
        for side in x_bhwc.shape[1:3]:
            self.check_grid(side, "the UNet")
        block, attend, resize = _parts(self, context_blc, mask_bl)
        time_be = _time(self, t_b, vector_be)
        x = convnet.Conv(self.width, dtype=self.dtype, name="conv_in")(x_bhwc)
        skips = [x]
        for level in range(len(self.mult)):
            if level:
                x = resize(x, level, f"down_{level}_conv")
                skips.append(x)
            for i in range(self.depth):
                x = block(x, time_be, level, f"down_{level}_block_{i}")
                if level in self.attention:
                    x = attend(x, level, f"down_{level}_attention_{i}")
                skips.append(x)
        x = block(x, time_be, level, "middle_block_0")
        if self.attention:
            x = attend(x, level, "middle_attention")
        x = block(x, time_be, level, "middle_block_1")
        for level in reversed(range(len(self.mult))):
            for i in range(self.depth + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(x, time_be, level, f"up_{level}_block_{i}")
                if level in self.attention:
                    x = attend(x, level, f"up_{level}_attention_{i}")
            if level:
                up = convnet.Conv(
                    x.shape[-1],
                    upsample=True,
                    dtype=self.dtype,
                    name=f"up_{level}_conv",
                )
                x = up(x)
        x = silu(GroupNorm(self.groups, EPS, self.dtype, name="norm")(x))
        out = convnet.Conv(
            self.channels, dtype=self.dtype, kernel_init=_ZEROS, name="conv_out"
        )
        return out(x).astype(jnp.float32)


def _time(net: Numbers, t_b: jax.Array, vector_be: jax.Array | None) -> jax.Array:
    """What all blocks see of the time step, (b, 4 width)."""
    embed_be = timestep.sinusoids(t_b, net.width)
    for i in (1, 2):
        dense = Dense(4 * net.width, dtype=net.dtype, name=f"time_{i}")
        embed_be = dense(embed_be) if i == 1 else dense(silu(embed_be))
    if vector_be is not None:
        embed_be += Dense(4 * net.width, dtype=net.dtype, name="vector")(vector_be)
    return silu(embed_be)


def _parts(
    net: Numbers, context_blc: jax.Array | None, mask_bl: jax.Array | None
) -> tuple[Callable, Callable, Callable]:
    """A residual block, a transformer and halving, by level and name."""
    block_of, grid_of = (
        transformer.remat(kind, net.remat) for kind in (Block, GridTransformer)
    )

    def block(x: jax.Array, time: jax.Array, level: int, name: str) -> jax.Array:
        width = net.width * net.mult[level]
        return block_of(width, net.groups, net.dtype, name=name)(x, time)

    def attend(x: jax.Array, level: int, name: str) -> jax.Array:
        sizes = net.heads_at(level), net.blocks, net.groups, net.dtype
        return grid_of(*sizes, name=name)(x, context_blc, mask_bl)

    def halve(x: jax.Array, level: int, name: str) -> jax.Array:
        conv = Conv(x.shape[-1], 3, 2, True, dtype=net.dtype, name=name)
        return conv(x)

    return block, attend, halve


def build(
    fields: Mapping[str, Any], where: str = "config.task.net", *, channels: int
) -> UNet:
    """The module of a config's fields, those of `Numbers`; errors name keys in `where`.

    channels: of the image or latent.
    """
    numbers = schema.from_mapping(Numbers, fields, where)
    return UNet(**vars(numbers), channels=channels)
