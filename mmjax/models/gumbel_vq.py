"""VQGAN with a Gumbel-softmax bottleneck, as taming-transformers has it (f = 8).

The codes of a picture are the largest of the logits that a 1x1 map makes of the
encoder's output, as in the dVAE of Ramesh et al. 2021; they stand for rows of a table.

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, v codes. Pictures are float32 in [0, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import codec, pictures
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal


class GumbelVq(nn.Module):
    """An image tokenizer. Build one by `image_tokenizer.build`.

    Variables: `params`; `likelihood/variance`, that of a pixel in [0, 1] given its
    code, as in VqVae.

    Fields:
      encoder, decoder: modules between (b, h, w, 3) in [-1, 1] and (b, g, g, d).
      image_size: pixels a side. grid: tokens a side.
      vocab_size: codes v. code_dim: their width d.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_size: int
    grid: int
    vocab_size: int
    code_dim: int

    def setup(self) -> None:
        shape = (self.vocab_size, self.code_dim)
        self._codes = self.param("codebook", normal(1.0), shape, jnp.float32)
        self.logits_of = Dense(self.vocab_size)
        self.variance = self.variable("likelihood", "variance", jnp.ones, ())

    def codes(self) -> jax.Array:
        """The table of codes, float32 (v, d)."""
        return self._codes

    def logits(self, x_bhw3: jax.Array) -> jax.Array:
        """Unnormalised log q(code | picture), float32 (b, n, v)."""
        pictures.require(x_bhw3, self.image_size)
        z_bggd = self.encoder(2.0 * x_bhw3 - 1.0)
        return self.logits_of(z_bggd.reshape(len(x_bhw3), -1, self.code_dim))

    def decode(self, codes_bnd: jax.Array) -> jax.Array:
        """Pictures of code vectors, float32 (b, h, w, 3) in [-1, 1], not clipped."""
        shape = (len(codes_bnd), self.grid, self.grid, self.code_dim)
        return self.decoder(codes_bnd.reshape(shape))

    def encode_tokens(self, x_bhw3: jax.Array) -> jax.Array:
        """The likeliest codes of pictures in [0, 1], int32 (b, n), row-major."""
        return jnp.argmax(self.logits(x_bhw3), axis=-1).astype(jnp.int32)

    def decode_tokens(self, ids_bn: jax.Array) -> jax.Array:
        """The pictures of codes, float32 (b, h, w, 3) in [0, 1]."""
        return pictures.shown(self.decode(self.codes()[ids_bn]))

    def nll(self, x_bhw3: jax.Array, ids_bn: jax.Array) -> jax.Array:
        """-ln p(x|z) in nats, (b,): Gaussian about the picture of the codes."""
        y_bhw3 = self.decode_tokens(ids_bn)
        return pictures.gaussian_nll(x_bhw3, y_bhw3, self.variance.value)

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """`decode_tokens(encode_tokens(x))`."""
        return self.decode_tokens(self.encode_tokens(x_bhw3))


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.tokenizer` where its kind is "gumbel_vq".

    image_size: pixels a side. vocab_size: codes. code_dim: width of a code.
    net: encoder and decoder, as `mmjax.models.codec.build` takes them.
    dtype: of the networks' compute.
    """

    image_size: int
    vocab_size: int
    code_dim: int = 256
    net: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"


def build(fields: Mapping[str, Any], where: str = "config.task.tokenizer") -> GumbelVq:
    """The module of a spec; errors name keys below `where`.

    Raises:
      UserError: an unknown key (names the nearest), a missing one or a wrong value.
    """
    spec = schema.from_mapping(Spec, fields, where)
    net = codec.build(spec.net, f"{where}.net")
    if spec.image_size % net.factor:
        raise UserError(
            f"{where}.image_size is {spec.image_size} and a code stands for "
            f"{net.factor} pixels a side: use a multiple of {net.factor}"
        )
    return GumbelVq(
        encoder=net.encoder(spec.code_dim, spec.dtype),
        decoder=net.decoder(spec.code_dim, spec.dtype),
        image_size=spec.image_size,
        grid=spec.image_size // net.factor,
        vocab_size=spec.vocab_size,
        code_dim=spec.code_dim,
    )
