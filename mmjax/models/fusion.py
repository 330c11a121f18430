"""Encoders of several modalities, a fusion block over them, and a chain over steps.

Legend: b rows, t steps, d columns of a field, w of a part, k outputs.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.nn import fusion
from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base

Arrays = Mapping[str, jax.Array]


class Fusion(nn.Module):
    """Parameters: `in_NAME/...`, `block/...`, and with `chain` `transition` (k, k).

    columns: what a rectified dense layer makes of every field; 0 takes fields as they
      are.
    pool: what becomes of series where a block takes points and an answer is of the
      row: `mean` of encoded steps, or `flat`, all steps side by side before the layer.
    chain: whether scores are those of a conditional random field over steps.
    """

    block: fusion.Base
    wanted: fusion.Wanted
    columns: int = 32
    pool: str = "mean"
    chain: bool = False

    @nn.compact
    def __call__(
        self, inputs: Arrays, masks: Arrays, steps: int
    ) -> tuple[fusion.Fused, jax.Array]:
        """Features (b, t, w) and scores (b, t, k); the transitions, zeros of no chain.

        Args:
          inputs: float32 (b, t, d) by name, t being 1 of static ones.
          masks: bool (b, t), False where there is nothing.
          steps: of the labels; 1 where they are of rows.
        """
        parts, given = {}, {}
        pooled = self.block.TAKES == "points" and not self.wanted.steps
        for name in sorted(inputs):
            x_btd, mask_bt = inputs[name], masks[name]
            x_btd = x_btd * mask_bt[..., None]
            flat = pooled and self.pool == "flat"
            if flat:
                x_btd = x_btd.reshape(len(x_btd), 1, -1)
            if self.columns:
                x_btd = nn.relu(Dense(self.columns, name=f"in_{name}")(x_btd))
            if pooled:
                x_btd = x_btd if flat else base.mean_step(x_btd, mask_bt)
                mask_bt = mask_bt.any(1, keepdims=True)
            if self.wanted.steps:  # a static field is there at every step
                x_btd = jnp.broadcast_to(x_btd, (len(x_btd), steps, x_btd.shape[-1]))
                mask_bt = jnp.broadcast_to(mask_bt, (len(mask_bt), steps))
            parts[name], given[name] = x_btd * mask_bt[..., None], mask_bt
        fused = self.block(parts, given, self.wanted)
        shape = self.wanted.outputs, self.wanted.outputs
        if not self.chain:
            return fused, jnp.zeros(shape)
        return fused, self.param("transition", nn.initializers.zeros, shape)


def block(given: Mapping[str, Any], where: str) -> fusion.Base:
    """The block of a mapping: `kind`, and that block's own fields."""
    given = dict(given)
    cls = fusion.find(given.pop("kind", "early"), where)
    return schema.from_mapping(cls, given, where)
