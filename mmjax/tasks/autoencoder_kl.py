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
from mmjax.losses import quantize
from mmjax.models import autoencoder_kl, images
from mmjax.state import Ctx, Vars
from mmjax.tasks.base import pixels
from mmjax.tasks.stage1 import Batch, Forward, Stage1, pixel_error, square_error


@dataclasses.dataclass(frozen=True)
class Task(Stage1):
    """Fields are `config.task`.

    autoencoder: what `mmjax.models.autoencoder_kl.build` takes.
    loss_name: "l1" (the paper) or "l2", of pixels in [-1, 1], summed over an image.
    kl_weight: of the KL to N(0, 1), summed over an image; 1e-6 in the paper.
    """

    SPEC = "autoencoder"
    autoencoder: dict
    loss_name: str = "l1"
    kl_weight: float = 1e-6

    def __post_init__(self) -> None:
        pixel_error(self.loss_name)
        schema.at_least(0, self, "kl_weight")
        _ = self.model  # its numbers are checked here

    @functools.cached_property
    def model(self) -> autoencoder_kl.AutoencoderKl:
        """The Linen module, a pure function of the fields."""
        return autoencoder_kl.build(self.autoencoder)

    def forward(self, variables: Vars, batch: Batch, ctx: Ctx) -> Forward:
        """(reconstruction + kl_weight KL) / numbers of an image.

        Metrics: `reconstruction`, per number of an image; `kl`, nats an image; `psnr`
        of the sampled latents' images, dB.
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
        loss = reconstruction + self.kl_weight * kl_b.mean() / x_bhw3[0].size
        square = square_error(images.shown(y_bhw3), x_bhw3, ctx)
        metrics = {
            "reconstruction": reconstruction,
            "kl": kl_b.mean(),
            "psnr": quantize.psnr(square),
        }
        return Forward(loss, 0.5 * y_bhw3 + 0.5, variables.extra, metrics)

    def encode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """Latents as a diffusion model sees them: means, shifted and scaled."""
        mean, _ = self._apply(variables, "moments", pixels(batch))
        return {"latent": (mean - self.model.shift) * self.model.scale}

    def decode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """{latent} to {image}."""
        z_bggd = batch["latent"] / self.model.scale + self.model.shift
        y_bhw3 = self._apply(variables, "decode", z_bggd)
        return {"image": images.shown(y_bhw3)}
