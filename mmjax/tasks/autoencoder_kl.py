"""Stage 1 of latent diffusion: an autoencoder with a small KL term.

Rombach et al. 2022, section 3.1 and appendix G, without their discriminator and their
perceptual loss: its pictures are softer than those of the released weights.
Legend: b rows, h w pixels.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.losses import quantize
from mmjax.models import autoencoder_kl, pictures
from mmjax.state import Ctx, Vars
from mmjax.tasks import base
from mmjax.tasks.base import pixels

PyTree = Any
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    model: what `mmjax.models.autoencoder_kl.build` takes.
    loss_name: "l1" (the paper) or "l2", of pixels in [-1, 1], summed over a picture.
    kl_weight: of the KL to N(0, 1), summed over a picture; 1e-6 in the paper.
    """

    model: dict
    loss_name: str = "l1"
    kl_weight: float = 1e-6

    couples_rows = False
    reads = ("image",)

    def __post_init__(self) -> None:
        if self.loss_name not in ("l1", "l2"):
            raise ValueError(f"loss_name is {self.loss_name!r}: use l1 or l2")
        if self.kl_weight < 0:
            raise ValueError(f"kl_weight is {self.kl_weight}: use 0 or more")
        _ = self.module  # its numbers are checked here

    @functools.cached_property
    def module(self) -> autoencoder_kl.AutoencoderKl:
        """The Linen module, a pure function of the fields."""
        return autoencoder_kl.build(self.model)

    def check(self, spec: base.Spec) -> None:
        """See Task."""
        base.check_image(spec, self.module.image_size, "model.image_size")

    def init(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Vars:
        """See Task."""
        return Vars(params=self.module.init(key, pixels(batch))["params"])

    def _apply(self, variables: Vars, method: str, *args: jax.Array) -> Any:
        return self.module.apply({"params": variables.params}, *args, method=method)

    def loss(
        self, variables: Vars, batch: Mapping[str, jax.Array], ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """(reconstruction + kl_weight KL) / numbers of a picture.

        Metrics: `reconstruction`, per number of a picture; `kl`, nats a picture; `psnr`
        of the sampled latents' pictures, dB.
        """
        x_bhw3 = pixels(batch)
        mean, log_variance = self._apply(variables, "moments", x_bhw3)
        keys_b = ctx.example_keys(len(x_bhw3))
        noise = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:]))(keys_b)
        z_bggd = mean + jnp.exp(0.5 * log_variance) * noise
        y_bhw3 = self._apply(variables, "decode", z_bggd)
        error = jnp.abs if self.loss_name == "l1" else jnp.square
        reconstruction = error(y_bhw3 - (2.0 * x_bhw3 - 1.0)).mean()
        kl_b = autoencoder_kl.kl(mean, log_variance)
        loss = reconstruction + self.kl_weight * kl_b.mean() / x_bhw3[0].size
        shown_bhw3 = pictures.shown(y_bhw3)
        square = ctx.mean(jnp.square(jax.lax.stop_gradient(shown_bhw3) - x_bhw3).mean())
        return loss, (
            variables.extra,
            {
                "reconstruction": reconstruction,
                "kl": kl_b.mean(),
                "psnr": quantize.psnr(square),
            },
        )

    def predict(self) -> Mapping[str, Any]:
        """loss, encode, decode, reconstruct."""

        def loss(variables: Vars, batch: Mapping, ctx: Ctx) -> Metrics:
            value, (_, metrics) = self.loss(variables, batch, ctx)
            return {"loss": value, **metrics}

        def encode(variables: Vars, batch: Mapping, ctx: Ctx) -> dict:
            """Latents as a diffusion model sees them: means, shifted and scaled."""
            mean, _ = self._apply(variables, "moments", pixels(batch))
            return {"latent": (mean - self.module.shift) * self.module.scale}

        def decode(variables: Vars, batch: Mapping, ctx: Ctx) -> dict:
            z_bggd = batch["latent"] / self.module.scale + self.module.shift
            y_bhw3 = self._apply(variables, "decode", z_bggd)
            return {"image": pictures.shown(y_bhw3)}

        def reconstruct(variables: Vars, batch: Mapping, ctx: Ctx) -> dict:
            return decode(variables, encode(variables, batch, ctx), ctx)

        return {
            "loss": loss,
            "encode": encode,
            "decode": decode,
            "reconstruct": reconstruct,
        }
