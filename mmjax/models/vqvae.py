"""VQ-VAE: images to a grid of codes and back (van den Oord et al. 2017).

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, k codes. Images are float32 in [0, 1]; the networks see and give [-1, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.models import code_table
from mmjax.models.code_table import CodeTable
from mmjax.nn import quantize
from mmjax.nn.init import uniform


class VqVae(CodeTable):
    """An image tokenizer with a codebook. Build one by `image_tokenizer.build`.

    Variables: `params` (with `codebook` (k, d) where `ema` is False); `codebook`, the
    fields of `nn.quantize.Codebook`, where it is True; `likelihood/variance`.

    Fields beside CodeTable's:
      ema: whether the codebook is kept by moving averages, or learned by gradients.
    """

    ema: bool = True

    def setup(self) -> None:
        k, d = self.vocab_size, self.code_dim
        if self.ema:
            fresh = {}
            if self.is_initializing():
                key = self.make_rng("params")
                fresh = quantize.fresh(key, k, d, self.grid**2)._asdict()
            self._book = {
                name: self.variable("codebook", name, lambda name=name: fresh[name])
                for name in quantize.Codebook._fields
            }
        else:
            # taming-transformers' start, small beside the encoder's output
            self._codes = self.param("codebook", uniform(1 / k), (k, d), jnp.float32)
        self.variance = self.variable("likelihood", "variance", jnp.ones, ())

    def codes(self) -> jax.Array:
        """The codebook, float32 (k, d)."""
        return self._book["codes"].value if self.ema else self._codes

    def encode_tokens(self, x_bhw3: jax.Array) -> jax.Array:
        """The nearest codes of images in [0, 1], int32 (b, n), row-major."""
        z_bnd = self.encode(x_bhw3)
        ids_m = quantize.nearest(z_bnd.reshape(-1, self.code_dim), self.codes())
        return ids_m.reshape(z_bnd.shape[:2])


@dataclasses.dataclass(frozen=True)
class Spec(code_table.Spec):
    """The keys of `config.task.tokenizer` where its kind is "vqvae".

    Those of `code_table.Spec`, and `ema`: see VqVae.
    """

    code_dim: int = 16
    ema: bool = True


def build(fields: Mapping[str, Any], where: str = "config.task.tokenizer") -> VqVae:
    """The module of a spec; see `code_table.build`."""
    return code_table.build(VqVae, Spec, fields, where)
