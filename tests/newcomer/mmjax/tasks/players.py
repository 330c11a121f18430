"""Two players: one draws vectors, the other tells them from the data's.

Legend: b rows, w columns.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.state import Vars


@dataclasses.dataclass(frozen=True)
class Task:
    """noise: columns that the drawing player starts from."""

    couples_rows = False
    reads = ("view_a",)

    noise: int = 3

    def check(self, spec):
        """See mmjax.tasks.base.Task."""

    def init(self, key, batch):
        """See mmjax.tasks.base.Task."""
        draw, judge = jax.random.split(key)
        width = batch["view_a"].shape[-1]
        noise_bn = jnp.zeros((1, self.noise))
        return Vars(
            {
                "draw": nn.Dense(width).init(draw, noise_bn)["params"],
                "judge": nn.Dense(1).init(judge, batch["view_a"][:1])["params"],
            }
        )

    def _drawn(self, params, keys_b, width):
        noise_bn = jax.vmap(lambda key: jax.random.normal(key, (self.noise,)))(keys_b)
        return nn.Dense(width).apply({"params": params["draw"]}, noise_bn)

    def _judged(self, params, x_bw):
        return nn.Dense(1).apply({"params": params["judge"]}, x_bw)[:, 0]

    def grads(self, variables, batch, ctx):
        """Each player's gradient of its own loss: non-saturating GAN."""
        real_bw = batch["view_a"]
        keys_b = ctx.example_keys(len(real_bw))

        def losses(params):
            drawn_bw = self._drawn(params, keys_b, real_bw.shape[-1])
            fake_b, real_b = (
                self._judged(params, drawn_bw),
                self._judged(params, real_bw),
            )
            return {
                "draw": nn.softplus(-fake_b).mean(),
                "judge": nn.softplus(fake_b).mean() + nn.softplus(-real_b).mean(),
            }

        values = losses(variables.params)
        grads = {
            player: jax.grad(lambda params, p=player: losses(params)[p])(
                variables.params
            )[player]
            for player in values
        }
        metrics = {"loss": values["judge"], "draw": values["draw"]}
        return grads, variables.extra, metrics

    def predict(self):
        """sample: {seed uint32 (p,), candidate (p, k)} to vector (p, k, w)."""
        return {}
