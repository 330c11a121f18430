"""Gated multimodal units (Arevalo et al. 2017). Legend: see the package."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base


class Block(base.Base):
    """Each part says something, and a gate that sees all parts how much of it counts.

    `h_m = tanh(W_m x_m)`, `z_m = sigmoid(V_m [x_1, x_2, ...])`, fused `sum_m z_m h_m`:
    equation 1 in its form for several modalities. An absent part says nothing.
    """

    width: int = 32

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        all_btd, fused_btw = base.side_by_side(parts), 0.0
        for name in sorted(parts):
            said_btw = jnp.tanh(Dense(self.width, name=f"say_{name}")(parts[name]))
            gate_btw = nn.sigmoid(Dense(self.width, name=f"gate_{name}")(all_btd))
            fused_btw += gate_btw * said_btw * masks[name][..., None]
        return self.scored(fused_btw, wanted)
