"""Stage 1 of latent diffusion: an autoencoder with a small KL term.

Rombach et al. 2022, section 3.1 and appendix G, without their discriminator and their
perceptual loss: its images are softer than those of the released weights.
Legend: b rows, h w pixels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.models import autoencoder_kl, images
from mmjax.state import Ctx, Vars
from mmjax.tasks.base import pixels
from mmjax.tasks.stage1 import (
    Batch,
    Metrics,
    PyTree,
    Seen,
    Stage1,
    pixel_error,
    square_error,
)


@dataclasses.dataclass(frozen=True)
class Task(Stage1):
    """Fields are `config.task`.

    autoencoder: what `mmjax.models.autoencoder_kl.build` takes.
    loss_name: "l1" (the paper) or "l2", of pixels in [-1, 1], summed over an image.
    kl_weight: of the KL to N(0, 1), summed over an image; 1e-6 in the paper.
    learned_variance: whether the reconstruction term is `error / exp(s) + s` for every
      number of an image, with one learned s, the parameter `log_variance`, from 0 (as
      in CompVis' code); otherwise it is the error.
    decay: of the moving averages that the latents' scale is made from, where
      `autoencoder.scale` is 0.
    """

    SPEC = "autoencoder"
    training_only = ("params/log_variance",)
    autoencoder: dict
    loss_name: str = "l1"
    kl_weight: float = 1e-6
    learned_variance: bool = False
    decay: float = 0.99

    def __post_init__(self) -> None:
        pixel_error(self.loss_name)
        schema.at_least(0, self, "kl_weight")
        _ = self.model  # its numbers are checked here

    @functools.cached_property
    def model(self) -> autoencoder_kl.AutoencoderKl:
        """The Linen module, a pure function of the fields."""
        return autoencoder_kl.build(self.autoencoder)

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See Task."""
        made = super().init(key, batch)
        if not self.learned_variance:
            return made
        return made._replace(params={**made.params, "log_variance": jnp.zeros(())})

    def look(self, variables: Vars, batch: Batch, ctx: Ctx) -> Seen:
        """(reconstruction + kl_weight KL) / numbers of an image.

        Metrics: `reconstruction`, the error per number of an image; `kl`, nats an
        image; `psnr` of the sampled latents' images, dB.
        """
        x_bhw3 = pixels(batch)
        mean, log_variance = self._apply(variables, "moments", x_bhw3)
        keys_b = ctx.example_keys(len(x_bhw3))
        noise = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:]))(keys_b)
        z_bggd = mean + jnp.exp(0.5 * log_variance) * noise
        y_bhw3 = self._apply(variables, "decode", z_bggd)
        error = pixel_error(self.loss_name)
        reconstruction = error(y_bhw3 - (2.0 * x_bhw3 - 1.0)).mean()
        kl_b = autoencoder_kl.kl(mean, log_variance)
        metrics = {"reconstruction": reconstruction, "kl": kl_b.mean()}
        if self.learned_variance:
            metrics["log_variance"] = s = variables.params["log_variance"]
            reconstruction = self.weigh(variables, reconstruction) + s
        loss = reconstruction + self.kl_weight * kl_b.mean() / x_bhw3[0].size
        seen = jax.lax.stop_gradient(z_bggd)
        means = {
            "square": square_error(images.shown(y_bhw3), x_bhw3),
            "latent": {"mean": seen.mean(), "square": jnp.square(seen).mean()},
        }
        return Seen(loss, 0.5 * y_bhw3 + 0.5, means, {}, metrics)

    def weigh(self, variables: Vars, error: jax.Array) -> jax.Array:
        """See Stage1: over the learned variance, where there is one."""
        if not self.learned_variance:
            return error
        return error * jnp.exp(-variables.params["log_variance"])

    def moved(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Stage1: the moments of the latents, where they make the scale."""
        if "latents" not in variables.extra:
            return variables.extra, {}
        step = jnp.where(ctx.step == 0, 1.0, 1 - self.decay)
        old, now = variables.extra["latents"], means["latent"]
        latents = {key: old[key] + step * (now[key] - old[key]) for key in now}
        return {"latents": latents}, {"scale": autoencoder_kl.scale_of(**latents)}

    def encode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """Latents as a diffusion model sees them: means, shifted and scaled."""
        mean, _ = self._apply(variables, "moments", pixels(batch))
        return {"latent": self._apply(variables, "scaled", mean)}

    def decode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """{latent} to {image}."""
        z_bggd = self._apply(variables, "unscaled", batch["latent"])
        y_bhw3 = self._apply(variables, "decode", z_bggd)
        return {"image": images.shown(y_bhw3)}
