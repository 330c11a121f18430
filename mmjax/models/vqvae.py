"""VQ-VAE: pictures to a grid of codes and back (van den Oord et al. 2017).

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, k codes. Pictures are float32 in [0, 1]; the networks see and give [-1, 1].
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models.resnet import ResidualConv
from mmjax.nn import quantize
from mmjax.nn.activation import activation
from mmjax.nn.attention import SelfAttention
from mmjax.nn.conv import Conv, space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.init import uniform
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
    """

    kind: str = "conv"
    widths: tuple[int, ...] = (64,)
    stem: int = 4
    depth: int = 2
    decoder_depth: int = 2
    norm: str = "none"
    groups: int = 8
    attention: bool = False

    def __post_init__(self) -> None:
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

    def block(self, dtype: str, name: str) -> nn.Module:
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
        x = Dense(3 * net.stem**2, name="out")(x)
        return depth_to_space(x, net.stem).astype(jnp.float32)


class VqVae(nn.Module):
    """An image tokenizer with a codebook. Build one by `image_tokenizer.build`.

    Variables: `params` (with `codebook` (k, d) where `ema` is False); `codebook`, the
    fields of `nn.quantize.Codebook`, where it is True; `likelihood/variance`, that of a
    pixel in [0, 1] given its code: p(x|z) = N(x; decode(z), variance).

    Fields:
      encoder, decoder: modules between (b, h, w, 3) in [-1, 1] and (b, g, g, d).
      image_size: pixels a side. grid: tokens a side.
      vocab_size: codes k. code_dim: their width d.
      ema: whether the codebook is kept by moving averages, or learned by gradients.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_size: int
    grid: int
    vocab_size: int
    code_dim: int
    ema: bool = True

    def setup(self) -> None:
        k, d = self.vocab_size, self.code_dim
        if self.ema:
            key = self.make_rng("params") if self.is_initializing() else None

            def fresh() -> dict[str, jax.Array]:
                return quantize.fresh(key, k, d, self.grid**2)._asdict()

            made = fresh() if self.is_initializing() else {}
            self._book = {
                name: self.variable("codebook", name, lambda name=name: made[name])
                for name in quantize.Codebook._fields
            }
        else:
            # taming-transformers' start, small beside the encoder's output
            self._codes = self.param("codebook", uniform(1 / k), (k, d), jnp.float32)
        self.variance = self.variable("likelihood", "variance", jnp.ones, ())

    def codes(self) -> jax.Array:
        """The codebook, float32 (k, d)."""
        return self._book["codes"].value if self.ema else self._codes

    def encode(self, x_bhw3: jax.Array) -> jax.Array:
        """What the codes are chosen by, float32 (b, n, d)."""
        size = self.image_size
        if x_bhw3.shape[1:] != (size, size, 3):
            raise UserError(
                f"the tokenizer takes pictures of {size} x {size} x 3, got "
                f"{' x '.join(map(str, x_bhw3.shape[1:]))}: set its image_size"
            )
        z_bggd = self.encoder(2.0 * x_bhw3 - 1.0)
        return z_bggd.reshape(len(x_bhw3), self.grid**2, self.code_dim)

    def decode(self, codes_bnd: jax.Array) -> jax.Array:
        """Pictures of code vectors, float32 (b, h, w, 3) in [-1, 1], not clipped."""
        shape = (len(codes_bnd), self.grid, self.grid, self.code_dim)
        return self.decoder(codes_bnd.reshape(shape))

    def encode_tokens(self, x_bhw3: jax.Array) -> jax.Array:
        """The nearest codes of pictures in [0, 1], int32 (b, n), row-major."""
        z_bnd = self.encode(x_bhw3)
        ids_m = quantize.nearest(z_bnd.reshape(-1, self.code_dim), self.codes())
        return ids_m.reshape(z_bnd.shape[:2])

    def decode_tokens(self, ids_bn: jax.Array) -> jax.Array:
        """The pictures of codes, float32 (b, h, w, 3) in [0, 1]."""
        y_bhw3 = self.decode(self.codes()[ids_bn])
        return jnp.clip(0.5 * y_bhw3 + 0.5, 0.0, 1.0)

    def nll(self, x_bhw3: jax.Array, ids_bn: jax.Array) -> jax.Array:
        """-ln p(x|z) in nats, (b,): a density over pixels in [0, 1].

        Gaussian about the picture of the codes, with the one variance of the model.
        """
        error_bhw3 = jnp.square(x_bhw3 - self.decode_tokens(ids_bn))
        var = self.variance.value
        nll_bhw3 = 0.5 * (error_bhw3 / var + jnp.log(2 * math.pi * var))
        return nll_bhw3.sum((1, 2, 3))

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """`decode_tokens(encode_tokens(x))`."""
        return self.decode_tokens(self.encode_tokens(x_bhw3))


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.tokenizer` where its kind is "vqvae".

    image_size: pixels a side. vocab_size: codes. code_dim: width of a code.
    net: encoder and decoder: {"kind": "conv", fields of ConvNet}.
    ema: see VqVae. dtype: of the networks' compute.
    """

    image_size: int
    vocab_size: int
    code_dim: int = 16
    net: dict[str, Any] = dataclasses.field(default_factory=dict)
    ema: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("image_size", "vocab_size", "code_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use 1 or more")


def build(fields: Mapping[str, Any], where: str = "config.task.tokenizer") -> VqVae:
    """The module of a spec; errors name keys below `where`.

    Raises:
      UserError: an unknown key (names the nearest), a missing one or a wrong value.
    """
    spec = schema.from_mapping(Spec, fields, where)
    net = schema.from_mapping(ConvNet, spec.net, f"{where}.net")
    if spec.image_size % net.factor:
        raise UserError(
            f"{where}.image_size is {spec.image_size} and a code stands for "
            f"{net.factor} pixels a side: use a multiple of {net.factor}"
        )
    return VqVae(
        encoder=ConvEncoder(net, spec.code_dim, spec.dtype),
        decoder=ConvDecoder(net, spec.dtype),
        image_size=spec.image_size,
        grid=spec.image_size // net.factor,
        vocab_size=spec.vocab_size,
        code_dim=spec.code_dim,
        ema=spec.ema,
    )
