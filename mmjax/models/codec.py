"""Encoders and decoders of image tokenizers, in pairs, by name.

A pair maps images (b, h, w, 3) in [-1, 1] to vectors (b, g, g, d) and back; both
return float32. `build({"kind": "conv", ...})` gives its numbers, which make the two.

Legend: b images, h w pixels, g side of the token grid, d width of a code, c channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import dvae
from mmjax.models.resnet import ResidualConv
from mmjax.models.vqgan import VqganNet
from mmjax.nn.activation import activation
from mmjax.nn.attention import SelfAttention
from mmjax.nn.conv import Conv, space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.norm import GroupNorm, LayerNorm


def depth_to_space(x_bhwc: jax.Array, size: int) -> jax.Array:
    """Channels as tiles of size x size pixels: `space_to_depth` undone."""
    b, h, w, c = x_bhwc.shape
    x = x_bhwc.reshape(b, h, w, size, size, c // size**2)
    return jnp.moveaxis(x, 3, 2).reshape(b, h * size, w * size, c // size**2)


class PlainResidual(nn.Module):
    """`x + conv1x1(relu(conv3x3(relu(x))))`, the residual block of the paper.

    Without normalisation a code depends on its neighbourhood alone.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        width = x_bhwc.shape[-1]
        y = Conv(width, use_bias=True, dtype=self.dtype, name="conv")(nn.relu(x_bhwc))
        return x_bhwc + Dense(width, dtype=self.dtype, name="out")(nn.relu(y))


class GridAttention(nn.Module):
    """`x + attention(norm(x))` over all positions of the grid, one head."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        b, h, w, c = x_bhwc.shape
        y_nc = LayerNorm(dtype=self.dtype, name="norm")(x_bhwc).reshape(-1, c)
        y_nc = SelfAttention(1, dtype=self.dtype, name="attention")(y_nc, h * w)
        return x_bhwc + y_nc.reshape(b, h, w, c)


@dataclasses.dataclass(frozen=True)
class ConvNet:
    """Numbers of a convolutional encoder and its mirrored decoder.

    kind: "conv".
    widths: channels of each stage, from the pixels to the codes; between two stages
      2x2 positions become one.
    stem: pixels a side that the first stage takes as one position.
    depth: residual blocks a stage in the encoder. decoder_depth: in the decoder.
    norm: "none", blocks as in the paper; "group", blocks with group norms as in VQGAN
      (Esser et al. 2021).
    groups: of the group norms.
    attention: whether the coarsest stage ends in (the decoder's: begins with)
      self-attention over the grid, as in VQGAN.
    head: hidden units between the pixels of a stem and the first stage, on both sides;
      0 is a linear map. With a large stem the edges within it are the head's work.
    """

    kind: str = "conv"
    widths: tuple[int, ...] = (64,)
    stem: int = 4
    depth: int = 2
    decoder_depth: int = 2
    norm: str = "none"
    groups: int = 8
    attention: bool = False
    head: int = 0

    def __post_init__(self) -> None:
        schema.at_least(0, self, "head", "depth", "decoder_depth")
        schema.at_least(1, self, "groups")
        if self.norm not in ("none", "group"):
            raise ValueError(f"norm is {self.norm!r}: use none or group")
        if not self.widths or min(*self.widths, self.stem) < 1:
            raise ValueError(
                f"widths {self.widths} and stem {self.stem} must be positive"
            )
        for width in self.widths:
            if self.norm == "group" and width % self.groups:
                raise ValueError(
                    f"width {width} must split over {self.groups} groups: use "
                    f"{width // self.groups * self.groups or self.groups}"
                )

    @property
    def factor(self) -> int:
        """Pixels a side of a code."""
        return self.stem * 2 ** (len(self.widths) - 1)

    def encoder(self, code_dim: int, dtype: str, *, double: bool = False) -> nn.Module:
        """double: give means and log variances, 2d channels."""
        return ConvEncoder(self, code_dim * (1 + double), dtype)

    def decoder(self, code_dim: int, dtype: str) -> nn.Module:
        """The module from codes (b, g, g, d) to images."""
        del code_dim  # read off the input
        return ConvDecoder(self, dtype)

    def block(self, dtype: str, name: str) -> nn.Module:
        """A residual block of the chosen kind."""
        if self.norm == "group":
            return ResidualConv(self.groups, "silu", dtype, name=name)
        return PlainResidual(dtype, name=name)


class ConvEncoder(nn.Module):
    """(b, h, w, 3) in [-1, 1] to (b, g, g, d), float32."""

    net: ConvNet
    code_dim: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        net, x = self.net, x_bhwc.astype(self.dtype)
        for stage, width in enumerate(net.widths):
            x = space_to_depth(x, 2 if stage else net.stem)
            if net.head and not stage:
                x = nn.relu(Dense(net.head, dtype=self.dtype, name="head")(x))
            x = Dense(width, dtype=self.dtype, name=f"down_{stage}")(x)
            for i in range(net.depth):
                x = net.block(self.dtype, f"stage_{stage}_block_{i}")(x)
        if net.attention:
            x = GridAttention(self.dtype, name="attention")(x)
        if net.norm == "group":
            x = GroupNorm(net.groups, dtype=self.dtype, name="norm")(x)
        x = activation("silu" if net.norm == "group" else "relu")(x)
        return Dense(self.code_dim, name="out")(x).astype(jnp.float32)


class ConvDecoder(nn.Module):
    """(b, g, g, d) to (b, h, w, 3), nominally in [-1, 1], float32."""

    net: ConvNet
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bggd: jax.Array) -> jax.Array:
        net, x = self.net, x_bggd.astype(self.dtype)
        x = Conv(net.widths[-1], use_bias=True, dtype=self.dtype, name="conv_in")(x)
        if net.attention:
            x = GridAttention(self.dtype, name="attention")(x)
        for stage in reversed(range(len(net.widths))):
            for i in range(net.decoder_depth):
                x = net.block(self.dtype, f"stage_{stage}_block_{i}")(x)
            if stage:
                width = 4 * net.widths[stage - 1]
                x = Dense(width, dtype=self.dtype, name=f"up_{stage}")(x)
                x = depth_to_space(x, 2)
        if net.norm == "group":
            x = GroupNorm(net.groups, dtype=self.dtype, name="norm")(x)
        x = activation("silu" if net.norm == "group" else "relu")(x)
        if net.head:
            x = nn.relu(Dense(net.head, dtype=self.dtype, name="head")(x))
        x = Dense(3 * net.stem**2, name="out")(x)
        return depth_to_space(x, net.stem).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class OpenAiNet:
    """Numbers of the dVAE's encoder and decoder (Ramesh et al. 2021, appendix A.2).

    kind: "openai". hidden, groups, blocks, init_width: as in `mmjax.models.dvae.Spec`.
    """

    kind: str = "openai"
    hidden: int = 256
    groups: int = 4
    blocks: int = 2
    init_width: int = 128

    def __post_init__(self) -> None:
        schema.at_least(1, self, "groups", "blocks", "init_width")
        dvae.check_hidden(self.hidden)

    @property
    def factor(self) -> int:
        """Pixels a side of a code."""
        return 2 ** (self.groups - 1)

    def encoder(self, code_dim: int, dtype: str, *, double: bool = False) -> nn.Module:
        sizes = self.hidden, self.groups, self.blocks
        return dvae.Encoder(code_dim * (1 + double), *sizes, dtype)

    def decoder(self, code_dim: int, dtype: str) -> nn.Module:
        sizes = self.hidden, self.groups, self.blocks
        return dvae.Decoder(code_dim, self.init_width, 3, *sizes, dtype)


NETS = {"conv": ConvNet, "openai": OpenAiNet, "vqgan": VqganNet}


def build(spec: Mapping[str, Any], where: str) -> ConvNet | OpenAiNet | VqganNet:
    """The numbers of a pair, with `factor`, `encoder(...)` and `decoder(...)`.

    An encoder with `double` gives 2d channels: means and log variances.
    """
    kind = spec["kind"] if "kind" in spec else "conv"
    if kind not in NETS:
        raise UserError(f"{where}.kind is {kind!r}{schema.suggest(kind, NETS)}")
    return schema.from_mapping(NETS[kind], spec, where)
