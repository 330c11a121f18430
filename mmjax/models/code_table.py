"""What image tokenizers share whose codes are rows of a table.

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, k codes. Images are float32 in [0, 1]; the networks see and give [-1, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax

from mmjax import schema
from mmjax.models import codec, images

T = TypeVar("T", bound="CodeTable")


class CodeTable(nn.Module):
    """A tokenizer between `encode_tokens`, its own, and a table of codes.

    Subclasses have `codes()`, float32 (k, d), and in `setup` the variable `variance`,
    `likelihood/variance`: that of a pixel in [0, 1] given its code,
    p(x|z) = N(x; decode(z), variance).

    Fields:
      encoder, decoder: modules between (b, h, w, 3) in [-1, 1] and (b, g, g, d).
      image_size: pixels a side. grid: tokens a side.
      vocab_size: codes k. code_dim: their width d.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_size: int
    grid: int
    vocab_size: int
    code_dim: int

    def encode(self, x_bhw3: jax.Array) -> jax.Array:
        """What the codes are chosen by, float32 (b, n, d)."""
        images.require(x_bhw3, self.image_size, "tokenizer")
        z_bggd = self.encoder(2.0 * x_bhw3 - 1.0)
        return z_bggd.reshape(len(x_bhw3), self.grid**2, self.code_dim)

    def decode(self, codes_bnd: jax.Array) -> jax.Array:
        """Images of code vectors, float32 (b, h, w, 3) in [-1, 1], not clipped."""
        shape = (len(codes_bnd), self.grid, self.grid, self.code_dim)
        return self.decoder(codes_bnd.reshape(shape))

    def decode_tokens(self, ids_bn: jax.Array) -> jax.Array:
        """The images of codes, float32 (b, h, w, 3) in [0, 1]."""
        return images.shown(self.decode(self.codes()[ids_bn]))

    def nll(self, x_bhw3: jax.Array, ids_bn: jax.Array) -> jax.Array:
        """-ln p(x|z) in nats, (b,): a density over pixels in [0, 1].

        Gaussian about the image of the codes, with the one variance of the model.
        """
        y_bhw3 = self.decode_tokens(ids_bn)
        return images.gaussian_nll(x_bhw3, y_bhw3, self.variance.value)

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """`decode_tokens(encode_tokens(x))`."""
        return self.decode_tokens(self.encode_tokens(x_bhw3))


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.tokenizer`.

    image_size: pixels a side. vocab_size: codes. code_dim: width of a code.
    net: encoder and decoder, as `mmjax.models.codec.build` takes them.
    dtype: of the networks' compute.
    """

    image_size: int
    vocab_size: int
    code_dim: int = 256
    net: dict[str, Any] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        schema.at_least(1, self, "image_size", "vocab_size", "code_dim")


def build(
    module: type[T], kind: type[Spec], fields: Mapping[str, Any], where: str
) -> T:
    """The module of a spec; errors name keys below `where`.

    What `kind` has beyond Spec are fields of the module.
    """
    spec = schema.from_mapping(kind, fields, where)
    net = codec.build(spec.net, f"{where}.net")
    own = vars(spec) | {"grid": images.grid(spec.image_size, net.factor, where)}
    del own["net"], own["dtype"]
    return module(
        encoder=net.encoder(spec.code_dim, spec.dtype),
        decoder=net.decoder(spec.code_dim, spec.dtype),
        **own,
    )
