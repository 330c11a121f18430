"""VQGAN with a Gumbel-softmax bottleneck, as taming-transformers has it (f = 8).

The codes of an image are the largest of the logits that a 1x1 map makes of the
encoder's output, as in the dVAE of Ramesh et al. 2021; they stand for rows of a table.

Legend: b images, h w pixels, g side of the token grid, n = g*g tokens, d width of a
code, v codes. Images are float32 in [0, 1].
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.models import code_table
from mmjax.models.code_table import CodeTable
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal


class GumbelVq(CodeTable):
    """An image tokenizer. Build one by `image_tokenizer.build`.

    Variables: `params`; `likelihood/variance`. Fields: see CodeTable.
    """

    def setup(self) -> None:
        shape = (self.vocab_size, self.code_dim)
        self._codes = self.param("codebook", normal(1.0), shape, jnp.float32)
        self.logits_of = Dense(self.vocab_size)
        self.variance = self.variable("likelihood", "variance", jnp.ones, ())

    def codes(self) -> jax.Array:
        """The table of codes, float32 (v, d)."""
        return self._codes

    def logits(self, x_bhw3: jax.Array) -> jax.Array:
        """Unnormalised log q(code | image), float32 (b, n, v)."""
        return self.logits_of(self.encode(x_bhw3))

    def encode_tokens(self, x_bhw3: jax.Array) -> jax.Array:
        """The likeliest codes of images in [0, 1], int32 (b, n), row-major."""
        return jnp.argmax(self.logits(x_bhw3), axis=-1).astype(jnp.int32)


def build(fields: Mapping[str, Any], where: str = "config.task.tokenizer") -> GumbelVq:
    """The module of a spec; see `code_table.build`."""
    return code_table.build(GumbelVq, code_table.Spec, fields, where)
