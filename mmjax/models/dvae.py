"""The discrete VAE of DALL-E (Ramesh et al. 2021, appendix A; openai/DALL-E).

Bottleneck blocks without normalisation, max-pooling on the way down, nearest-neighbour
upsampling on the way up. An image's code is a grid of categorical variables, and the
decoder takes them one-hot or as mixtures: its first map is a table of the codes.

Legend: b images, h w pixels, c channels, g side of the token grid, n = g*g tokens,
v codes. Images are float32 in [0, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.models import images
from mmjax.nn import convnet, logit_laplace


class EncoderBlock(nn.Module):
    """`id(x) + gain * res(x)`: three 3x3 convolutions at a quarter width, then 1x1."""

    features: int
    gain: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        y = x_bhwc
        for i in (1, 2, 3):
            y = _conv(nn.relu(y), self.features // 4, self.dtype, f"conv_{i}")
        y = _point(nn.relu(y), self.features, self.dtype, "conv_4", gain=self.gain)
        return _skip(x_bhwc, self.features, self.dtype) + y


class DecoderBlock(nn.Module):
    """`id(x) + gain * res(x)`: 1x1 to a quarter width, then three 3x3 convolutions.

    With `up` the input is first upsampled by two. Both paths begin with what looks at
    single pixels (ReLU, 1x1), so these run before the upsampling, on a quarter of the
    pixels, with the same result.
    """

    features: int
    gain: float
    up: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        hidden, dtype = self.features // 4, self.dtype
        y = _point(nn.relu(x_bhwc), hidden, dtype, "conv_1")
        y = _conv(nn.relu(y), hidden, dtype, "conv_2", upsample=self.up)
        y = _conv(nn.relu(y), hidden, dtype, "conv_3")
        x_bhwc = _skip(x_bhwc, self.features, dtype)
        x_bhwc = convnet.upsample(x_bhwc) if self.up else x_bhwc
        return x_bhwc + _conv(
            nn.relu(y), self.features, dtype, "conv_4", gain=self.gain
        )


def _conv(x: jax.Array, features: int, dtype: str, name: str, **more) -> jax.Array:
    return convnet.Conv(features, dtype=dtype, name=name, **more)(x)


def _point(x: jax.Array, features: int, dtype: str, name: str, **more) -> jax.Array:
    width = x.shape[-1]
    return convnet.point(features, width=width, dtype=dtype, name=name, **more)(x)


def _skip(x_bhwc: jax.Array, features: int, dtype: str) -> jax.Array:
    if x_bhwc.shape[-1] == features:
        return x_bhwc
    return _point(x_bhwc, features, dtype, "skip")


class Encoder(nn.Module):
    """(b, h, w, c) to (b, g, g, features), float32; a group halves the side.

    Fields:
      features: channels out. hidden: width of the first group, doubled by each.
      groups: of residual blocks; 2^(groups-1) pixels a side make one position.
      blocks_per_group: residual blocks of each.
    """

    features: int
    hidden: int = 256
    groups: int = 4
    blocks_per_group: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        gain = 1.0 / (self.groups * self.blocks_per_group) ** 2
        x = _conv(x_bhwc, self.hidden, self.dtype, "conv_in", kernel=7)
        for group in range(1, self.groups + 1):
            if group > 1:
                x = convnet.max_pool(x)
            features = self.hidden * 2 ** (group - 1)
            for block in range(1, self.blocks_per_group + 1):
                name = f"group_{group}_block_{block}"
                x = EncoderBlock(features, gain, self.dtype, name=name)(x)
        return _point(nn.relu(x).astype(jnp.float32), self.features, "float32", "out")


class Decoder(nn.Module):
    """(b, g, g, width) to (b, h, w, features), float32: the encoder mirrored.

    Takes mixtures of codes, or code numbers, int (b, g, g), which stand for one-hot
    vectors: then the first map is the look-up of a row.

    Fields:
      width: channels in. init_width: channels after the first map.
      features: channels out. The others are as in `Encoder`; the widest group comes
        first.
    """

    width: int
    init_width: int = 128
    features: int = 6
    hidden: int = 256
    groups: int = 4
    blocks_per_group: int = 2
    dtype: str = "float32"

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        first = convnet.point(self.init_width, width=self.width, name="conv_in")
        if jnp.issubdtype(codes.dtype, jnp.integer):
            kernel, bias = first.weights(self.width)
            x = kernel[codes] + bias
        else:
            x = first(codes)
        gain, x = 1.0 / (self.groups * self.blocks_per_group) ** 2, x.astype(self.dtype)
        for group in range(1, self.groups + 1):
            features = self.hidden * 2 ** (self.groups - group)
            for block in range(1, self.blocks_per_group + 1):
                up = group > 1 and block == 1
                name = f"group_{group}_block_{block}"
                x = DecoderBlock(features, gain, up, self.dtype, name=name)(x)
        x = _point(nn.relu(x), self.features, self.dtype, "out")
        return x.astype(jnp.float32)


class Pixels(NamedTuple):
    """Logit-Laplace distributions of pixels and channels, each (b, h, w, 3) float32."""

    mean: jax.Array  # mu, in logits
    log_scale: jax.Array  # ln b


class DVae(nn.Module):
    """An image tokenizer. Build one by `image_tokenizer.build`.

    Variables: `params`; `relaxation/temperature`, that of the soft codes which the
    decoder was last trained on, 1 before training.

    Fields: as in `Spec`.
    """

    image_size: int
    vocab_size: int
    hidden: int = 256
    groups: int = 4
    blocks_per_group: int = 2
    init_width: int = 128
    dtype: str = "float32"

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.image_size // 2 ** (self.groups - 1)

    def setup(self) -> None:
        sizes = self.hidden, self.groups, self.blocks_per_group, self.dtype
        self.encoder = Encoder(self.vocab_size, *sizes)
        self.decoder = Decoder(self.vocab_size, self.init_width, 6, *sizes)
        self.temperature = self.variable("relaxation", "temperature", jnp.ones, ())

    def logits(self, x_bhw3: jax.Array) -> jax.Array:
        """Unnormalised log q(code | image), float32 (b, n, v)."""
        images.require(x_bhw3, self.image_size, "tokenizer")
        logits_bggv = self.encoder(logit_laplace.map_pixels(x_bhw3))
        return logits_bggv.reshape(len(x_bhw3), self.grid**2, self.vocab_size)

    def decode(self, codes: jax.Array) -> Pixels:
        """p(image | codes), of mapped pixels.

        Args:
          codes: mixtures of codes, float32 (b, n, v), or code numbers, int (b, n).
        """
        shape = (len(codes), self.grid, self.grid, *codes.shape[2:])
        return Pixels(*jnp.split(self.decoder(codes.reshape(shape)), 2, axis=-1))

    def encode_tokens(self, x_bhw3: jax.Array) -> jax.Array:
        """The likeliest codes of images in [0, 1], int32 (b, n), row-major."""
        return jnp.argmax(self.logits(x_bhw3), axis=-1).astype(jnp.int32)

    def decode_tokens(self, ids_bn: jax.Array) -> jax.Array:
        """The images of codes, float32 (b, h, w, 3) in [0, 1]."""
        return logit_laplace.pixels(self.decode(ids_bn).mean)

    def nll(self, x_bhw3: jax.Array, ids_bn: jax.Array) -> jax.Array:
        """-ln p(x | codes) in nats, (b,): a density over pixels in [0, 1]."""
        out = self.decode(ids_bn)
        mapped_bhw3 = logit_laplace.map_pixels(x_bhw3)
        nll_b = logit_laplace.nll(mapped_bhw3, *out).sum((1, 2, 3))
        return logit_laplace.from_unit(nll_b, x_bhw3[0].size)

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """`decode_tokens(encode_tokens(x))`."""
        return self.decode_tokens(self.encode_tokens(x_bhw3))


def check_hidden(hidden: int) -> None:
    """ValueError for a width whose quarter is no number of channels."""
    if hidden < 4 or hidden % 4:
        raise ValueError(
            f"hidden is {hidden}, and blocks work at a quarter of it: use "
            f"{max(4, hidden // 4 * 4)}"
        )


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.tokenizer` where its kind is "dvae".

    image_size: pixels a side. vocab_size: codes.
    hidden: channels at full size, doubled wherever the side is halved. groups: sizes
      the networks work at; a code stands for 2^(groups-1) pixels a side.
    blocks_per_group: residual blocks of each. init_width: channels of a code in the
      decoder. dtype: of the networks' compute; logits, codes and losses are float32.
    """

    image_size: int
    vocab_size: int
    hidden: int = 256
    groups: int = 4
    blocks_per_group: int = 2
    init_width: int = 128
    dtype: str = "float32"

    def __post_init__(self) -> None:
        schema.at_least(1, self, "image_size", "vocab_size", "groups")
        schema.at_least(1, self, "blocks_per_group", "init_width")
        check_hidden(self.hidden)
        factor = 2 ** (self.groups - 1)
        if self.image_size % factor:
            raise ValueError(
                f"image_size is {self.image_size} and a code of {self.groups} groups "
                f"stands for {factor} pixels a side: use a multiple of {factor}"
            )


def build(fields: Mapping[str, Any], where: str = "config.task.tokenizer") -> DVae:
    """The module of a spec; errors name keys below `where`."""
    spec = schema.from_mapping(Spec, fields, where)
    return DVae(**dataclasses.asdict(spec))
