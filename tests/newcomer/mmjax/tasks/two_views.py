"""Two vectors of one record, brought together: no image and no text.

Legend: b rows, d columns.
"""

import dataclasses

import flax.linen as nn
import jax

from mmjax.errors import UserError
from mmjax.losses import agreement
from mmjax.state import Vars


@dataclasses.dataclass(frozen=True)
class Task:
    """width: columns of the common space."""

    couples_rows = True
    reads = ("view_a", "view_b")

    width: int = 2

    def check(self, spec):
        """See mmjax.tasks.base.Task."""
        for name in self.reads:
            (have,) = spec[name]["shape"]
            if have < self.width:
                raise UserError(
                    f"{name} has {have} columns, fewer than config.task.width "
                    f"{self.width}: set it to {have} or less"
                )

    def _embed(self, params, name, batch):
        return nn.Dense(self.width).apply({"params": params[name]}, batch[name])

    def init(self, key, batch):
        """See mmjax.tasks.base.Task."""
        keys = jax.random.split(key)
        make = nn.Dense(self.width).init
        pairs = zip(self.reads, keys, strict=True)
        return Vars({name: make(k, batch[name])["params"] for name, k in pairs})

    def loss(self, variables, batch, ctx):
        """The agreement of all rows of the step."""
        views = [self._embed(variables.params, n, batch) for n in self.reads]
        loss = agreement.agreement(*ctx.gather(tuple(views)))
        return loss, (variables.extra, {})

    def predict(self):
        """view_a, view_b: rows in the common space (b, d)."""

        def embed(name):
            return lambda variables, batch, ctx: self._embed(
                variables.params, name, batch
            )

        return {name: embed(name) for name in self.reads}
