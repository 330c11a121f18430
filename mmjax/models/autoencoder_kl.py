"""A variational autoencoder with a grid of continuous latents (Rombach et al. 2022).

Stage 1 of latent diffusion, as in CompVis' `AutoencoderKL` and diffusers' class of that
name. Legend: b images, h w pixels, g side of the latent grid, d channels of a latent.
Images are float32 in [0, 1]; the networks see and give [-1, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.models import codec, images

LOG_VARIANCE = (-30.0, 20.0)  # clipped there, in all of the originals


class AutoencoderKl(nn.Module):
    """Build one by `build`.

    Fields:
      encoder, decoder: modules from (b, h, w, 3) in [-1, 1] to means and log variances
        (b, g, g, 2d), and from (b, g, g, d) back.
      image_size: pixels a side. grid: latents a side. code_dim: their channels d.
      scale, shift: a diffusion model sees `(z - shift) * scale`, of unit variance.
        Scale 0 is 1 / std of the model's own latents (Rombach et al. 2022, appendix G),
        by their mean and mean square: variables `latents/mean` and `latents/square`.
    """

    encoder: nn.Module
    decoder: nn.Module
    image_size: int
    grid: int
    code_dim: int
    scale: float = 1.0
    shift: float = 0.0

    def setup(self) -> None:
        if not self.scale:
            self.mean = self.variable("latents", "mean", jnp.zeros, ())
            self.square = self.variable("latents", "square", jnp.ones, ())

    def _scale(self) -> jax.Array | float:
        return self.scale or scale_of(self.mean.value, self.square.value)

    def scaled(self, z_bggd: jax.Array) -> jax.Array:
        """Latents as a diffusion model sees them."""
        return (z_bggd - self.shift) * self._scale()

    def unscaled(self, z_bggd: jax.Array) -> jax.Array:
        """`scaled` undone."""
        return z_bggd / self._scale() + self.shift

    def moments(self, x_bhw3: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of q(z | image), float32 (b, g, g, d) each."""
        images.require(x_bhw3, self.image_size, "autoencoder")
        mean, log_variance = jnp.split(self.encoder(2.0 * x_bhw3 - 1.0), 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE)

    def decode(self, z_bggd: jax.Array) -> jax.Array:
        """Images of latents, float32 (b, h, w, 3) in [-1, 1], not clipped."""
        return self.decoder(z_bggd)

    def __call__(self, x_bhw3: jax.Array) -> jax.Array:
        """Images of the means of their own latents, in [0, 1]."""
        mean, _ = self.moments(x_bhw3)
        return images.shown(self.decode(mean))


def scale_of(mean: jax.Array, square: jax.Array) -> jax.Array:
    """1 / std of numbers with this mean and mean square."""
    return jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 1e-12))


def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over a latent grid, (b,)."""
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance
    return 0.5 * terms.sum((1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.autoencoder` of the task `autoencoder_kl`.

    image_size: pixels a side. code_dim: channels of a latent. net: as
    `mmjax.models.codec.build` takes it, of kind "vqgan" by default. scale, shift: see
    AutoencoderKl. dtype: of the networks' compute.
    """

    image_size: int
    code_dim: int = 4
    net: dict[str, Any] = dataclasses.field(default_factory=dict)
    scale: float = 1.0
    shift: float = 0.0
    dtype: str = "float32"


def build(
    fields: Mapping[str, Any], where: str = "config.task.autoencoder"
) -> AutoencoderKl:
    """The module of a spec; errors name keys below `where`."""
    spec = schema.from_mapping(Spec, fields, where)
    net = codec.build({"kind": "vqgan", **spec.net}, f"{where}.net")
    return AutoencoderKl(
        encoder=net.encoder(spec.code_dim, spec.dtype, double=True),
        decoder=net.decoder(spec.code_dim, spec.dtype),
        image_size=spec.image_size,
        grid=images.grid(spec.image_size, net.factor, where, "latent"),
        code_dim=spec.code_dim,
        scale=spec.scale,
        shift=spec.shift,
    )
