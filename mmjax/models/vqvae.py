"""VQ-VAE: pictures to a grid of codes and back (van den Oord et al. 2017).

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, k codes. Pictures are float32 in [0, 1]; the networks see and give [-1, 1].
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
from mmjax.nn import quantize
from mmjax.nn.init import uniform


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
            made = {}
            if self.is_initializing():
                key = self.make_rng("params")
                made = quantize.fresh(key, k, d, self.grid**2)._asdict()
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
        pictures.require(x_bhw3, self.image_size)
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
        return pictures.shown(self.decode(self.codes()[ids_bn]))

    def nll(self, x_bhw3: jax.Array, ids_bn: jax.Array) -> jax.Array:
        """-ln p(x|z) in nats, (b,): a density over pixels in [0, 1].

        Gaussian about the picture of the codes, with the one variance of the model.
        """
        y_bhw3 = self.decode_tokens(ids_bn)
        return pictures.gaussian_nll(x_bhw3, y_bhw3, self.variance.value)

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """`decode_tokens(encode_tokens(x))`."""
        return self.decode_tokens(self.encode_tokens(x_bhw3))


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.tokenizer` where its kind is "vqvae".

    image_size: pixels a side. vocab_size: codes. code_dim: width of a code.
    net: encoder and decoder, as `mmjax.models.codec.build` takes them.
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
    net = codec.build(spec.net, f"{where}.net")
    if spec.image_size % net.factor:
        raise UserError(
            f"{where}.image_size is {spec.image_size} and a code stands for "
            f"{net.factor} pixels a side: use a multiple of {net.factor}"
        )
    return VqVae(
        encoder=net.encoder(spec.code_dim, spec.dtype),
        decoder=net.decoder(spec.code_dim, spec.dtype),
        image_size=spec.image_size,
        grid=spec.image_size // net.factor,
        vocab_size=spec.vocab_size,
        code_dim=spec.code_dim,
        ema=spec.ema,
    )
