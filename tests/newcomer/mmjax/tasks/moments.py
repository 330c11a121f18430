"""A closed form: mean and covariance of the data, by no gradient and no parameter.

Legend: b rows, w columns.
"""

import dataclasses

import jax.numpy as jnp

from mmjax.state import Vars


@dataclasses.dataclass(frozen=True)
class Task:
    """rate: how far the moments move towards a batch's."""

    couples_rows = True
    reads = ("view_a",)
    init_rows = 16

    rate: float = 0.1

    def check(self, spec):
        """See mmjax.tasks.base.Task."""

    def init(self, key, batch):
        """The moments of the first rows."""
        return Vars(params={}, extra=self._moments(batch["view_a"]))

    def _moments(self, x_bw):
        mean_w = x_bw.mean(0)
        return {"mean": mean_w, "cov": (x_bw - mean_w).T @ (x_bw - mean_w) / len(x_bw)}

    def grads(self, variables, batch, ctx):
        """No gradients; `extra` moves towards the moments of all rows of the step."""
        batch_moments = self._moments(ctx.gather(batch["view_a"]))
        old = variables.extra
        extra = {k: old[k] + self.rate * (batch_moments[k] - old[k]) for k in old}
        far = jnp.square(batch_moments["mean"] - old["mean"]).sum()
        return {}, extra, {"loss": far}

    def predict(self):
        """loss: squared distance of each row to the mean, (b,)."""

        def loss(variables, batch, ctx):
            far_bw = batch["view_a"] - variables.extra["mean"]
            return {"loss": jnp.square(far_bw).sum(-1)}

        return {"loss": loss}
