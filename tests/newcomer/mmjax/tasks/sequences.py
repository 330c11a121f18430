"""A vector told from a sequence of any length; rows without the vector do not count.

Legend: b rows, t samples, w columns.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from mmjax.state import Vars


@dataclasses.dataclass(frozen=True)
class Task:
    """hidden: width of the layer between."""

    couples_rows = False
    reads = ("wave", "view_b")

    hidden: int = 8

    def check(self, spec):
        """See mmjax.tasks.base.Task."""

    def _model(self, batch):
        return nn.Sequential(
            [nn.Dense(self.hidden), nn.tanh, nn.Dense(batch["view_b"].shape[-1])]
        )

    def init(self, key, batch):
        """See mmjax.tasks.base.Task."""
        return Vars(self._model(batch).init(key, batch["wave"])["params"])

    def _rows(self, variables, batch):
        told_btw = self._model(batch).apply({"params": variables.params}, batch["wave"])
        mask_bt1 = batch["wave_mask"][..., None]
        told_bw = (told_btw * mask_bt1).sum(1) / jnp.maximum(mask_bt1.sum(1), 1)
        loss_b = jnp.square(told_bw - batch["view_b"]).mean(-1)
        return jnp.where(batch["view_b_present"], loss_b, 0.0)

    def loss(self, variables, batch, ctx):
        """Mean over rows; those without the vector are 0."""
        return self._rows(variables, batch).mean(), (variables.extra, {})

    def predict(self):
        """loss: (b,), see above."""
        return {
            "loss": lambda variables, batch, ctx: {"loss": self._rows(variables, batch)}
        }
