"""The encoder and decoder of VQGAN and of latent diffusion's autoencoders.

Esser et al. 2021 (taming-transformers), Rombach et al. 2022, diffusers' VQModel and
AutoencoderKL: residual blocks with group norms, attention where the grid is coarse,
strided convolutions down and repeated pixels up. One pair of modules for all of them.

Legend: b images, h w pixels, g side of the latent grid, c channels, d width of a code.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import convnet
from mmjax.nn.attention import SelfAttention
from mmjax.nn.conv import Conv
from mmjax.nn.dense import Dense
from mmjax.nn.norm import GroupNorm

EPS = 1e-6  # of every group norm, in all of the originals


class Block(nn.Module):
    """`skip(x) + conv(silu(norm(conv(silu(norm(x))))))`, 3x3 each."""

    features: int
    groups: int = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        y = x_bhwc
        for i in (1, 2):
            y = GroupNorm(self.groups, EPS, self.dtype, name=f"norm_{i}")(y)
            conv = Conv(
                self.features, use_bias=True, dtype=self.dtype, name=f"conv_{i}"
            )
            y = conv(nn.silu(y))
        if x_bhwc.shape[-1] != self.features:
            x_bhwc = Dense(self.features, dtype=self.dtype, name="skip")(x_bhwc)
        return x_bhwc + y


class GridAttention(nn.Module):
    """`x + attention(norm(x))` over all positions, one head."""

    groups: int = 32
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        b, h, w, c = x_bhwc.shape
        y = GroupNorm(self.groups, EPS, self.dtype, name="norm")(x_bhwc)
        attention = SelfAttention(1, dtype=self.dtype, name="attention")
        return x_bhwc + attention(y.reshape(-1, c), h * w).reshape(b, h, w, c)


@dataclasses.dataclass(frozen=True)
class VqganNet:
    """Numbers of the pair; the defaults are VQGAN's at f = 16.

    kind: "vqgan".
    width: channels of the first level. mult: of each level, as multiples of width;
      from one to the next the side is halved.
    depth: residual blocks a level in the encoder; the decoder has one more.
    attention: the levels (0 is the finest) whose every block is followed by attention.
    middle: whether the two blocks of the coarsest grid have attention between them.
    hidden: channels between the network and the 1x1 map to codes. points: whether there
      is that map, on either side; without it `hidden` is the width of a code.
    groups: of the group norms.
    """

    kind: str = "vqgan"
    width: int = 128
    mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    depth: int = 2
    attention: tuple[int, ...] = (4,)
    middle: bool = True
    hidden: int = 256
    points: bool = True
    groups: int = 32

    def __post_init__(self) -> None:
        if not self.mult or min(*self.mult, self.width, self.depth, self.hidden) < 1:
            raise ValueError(
                f"width {self.width}, mult {self.mult}, depth {self.depth} and hidden "
                f"{self.hidden} must be positive"
            )
        for level in self.attention:
            if not 0 <= level < len(self.mult):
                raise ValueError(
                    f"attention names level {level} of {len(self.mult)}: use 0 to "
                    f"{len(self.mult) - 1}"
                )
        for mult in self.mult:
            if self.width * mult % self.groups:
                raise ValueError(
                    f"width {self.width} x {mult} must split over {self.groups} groups"
                )

    @property
    def factor(self) -> int:
        """Pixels a side of a code."""
        return 2 ** (len(self.mult) - 1)

    def encoder(self, code_dim: int, dtype: str, *, double: bool = False) -> nn.Module:
        """double: give means and log variances, 2d channels."""
        self._check(code_dim)
        return Encoder(self, code_dim, double, dtype)

    def decoder(self, code_dim: int, dtype: str) -> nn.Module:
        self._check(code_dim)
        return Decoder(self, dtype)

    def _check(self, code_dim: int) -> None:
        if not self.points and code_dim != self.hidden:
            raise ValueError(
                f"codes are {code_dim} wide and hidden is {self.hidden}: without "
                "points they must be equal"
            )

    def parts(self, dtype: str) -> tuple:
        """Makers of what both sides consist of: block, attention."""

        def block(features: int, name: str) -> nn.Module:
            return Block(features, self.groups, dtype, name=name)

        def attention(name: str) -> nn.Module:
            return GridAttention(self.groups, dtype, name=name)

        return block, attention


class Encoder(nn.Module):
    """(b, h, w, 3) in [-1, 1] to (b, g, g, d), float32; 2d channels with `double`."""

    net: VqganNet
    code_dim: int
    double: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        net, times = self.net, 2 if self.double else 1
        block, attention = net.parts(self.dtype)

        def conv(features: int, name: str, **more) -> Conv:
            return Conv(features, use_bias=True, dtype=self.dtype, name=name, **more)

        x = conv(net.width, "conv_in")(x_bhwc)
        for level, mult in enumerate(net.mult):
            if level:
                # taming-transformers pads the far sides alone
                down = conv(x.shape[-1], f"down_{level}", stride=2, padding=(0, 1))
                x = down(x)
            for i in range(net.depth):
                x = block(net.width * mult, f"level_{level}_block_{i}")(x)
                if level in net.attention:
                    x = attention(f"level_{level}_attention_{i}")(x)
        x = _middle(net, self.dtype)(x)
        x = nn.silu(GroupNorm(net.groups, EPS, self.dtype, name="norm")(x))
        x = conv(times * net.hidden, "conv_out")(x).astype(jnp.float32)
        return Dense(times * self.code_dim, name="point")(x) if net.points else x


class Decoder(nn.Module):
    """(b, g, g, d) to (b, h, w, 3), nominally in [-1, 1], float32."""

    net: VqganNet
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bggd: jax.Array) -> jax.Array:
        net, x = self.net, x_bggd.astype(jnp.float32)
        block, attention = net.parts(self.dtype)
        if net.points:
            x = Dense(net.hidden, name="point")(x)
        top = net.width * net.mult[-1]
        x = Conv(top, use_bias=True, dtype=self.dtype, name="conv_in")(x)
        x = _middle(net, self.dtype)(x)
        for level in reversed(range(len(net.mult))):
            for i in range(net.depth + 1):
                x = block(net.width * net.mult[level], f"level_{level}_block_{i}")(x)
                if level in net.attention:
                    x = attention(f"level_{level}_attention_{i}")(x)
            if level:
                up = convnet.Conv(
                    x.shape[-1], upsample=True, dtype=self.dtype, name=f"up_{level}"
                )
                x = up(x)
        x = nn.silu(GroupNorm(net.groups, EPS, self.dtype, name="norm")(x))
        x = Conv(3, use_bias=True, dtype=self.dtype, name="conv_out")(x)
        return x.astype(jnp.float32)


def _middle(net: VqganNet, dtype: str) -> Callable[[jax.Array], jax.Array]:
    """Two blocks of the coarsest grid, attention between them."""
    block, attention = net.parts(dtype)
    width = net.width * net.mult[-1]
    layers = [block(width, "middle_block_0")]
    if net.middle:
        layers.append(attention("middle_attention"))
    layers.append(block(width, "middle_block_1"))

    def run(x: jax.Array) -> jax.Array:
        for layer in layers:
            x = layer(x)
        return x

    return run
