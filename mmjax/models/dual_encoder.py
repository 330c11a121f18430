"""Two towers into one space, with a learned temperature: CLIP and its kin."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models import images as images_lib
from mmjax.nn.clamp import clamp
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal

SCALE_MAX = 100.0
LOG_SCALE_MAX = math.log(SCALE_MAX)


class DualOutput(NamedTuple):
    """What a call of `DualEncoder` returns; embeddings are not normalised."""

    image: jax.Array  # (b, d) float32
    text: jax.Array  # (b, d) float32
    scale: jax.Array  # () float32, exp of the log scale: from 1 to `max_scale`
    bias: jax.Array  # () float32, 0 where the model has no logit bias


class DualEncoder(nn.Module):
    """Image and text tower, joint projections N(0, 1/features), temperature.

    Parameters: `image/...`, `text/...`, `image_proj/kernel` (and `bias` under a
    ResNet, whose attention pool ends in it; none where the tower's own head ends in
    the joint space), `text_proj/kernel` (and `bias`, where the tower asks for it),
    `logit_scale` and, where `init_bias` is a number, `logit_bias`. A ResNet adds
    `batch_stats`: call it in training with `mutable=["batch_stats"]`.

    Build one by `models.presets.build(...)`.

    Fields:
      image: tower with `features`, `image_size`, `project` and `project_bias`; called
        `(images, train=, axis=)`.
      text: tower with `features` and `project_bias`; called `(tokens, mask)`.
      embed_dim: width d of the joint space.
      init_scale: initial log scale; log(1/0.07) in CLIP, log(10) in SigLIP.
      init_bias: initial logit bias (-10 in SigLIP), or None for a model without.
      max_scale: the scale is clamped from 1 to it, 100 in CLIP; 0: not clamped, as in
        SigLIP, whose released models are above.
    """

    image: nn.Module
    text: nn.Module
    embed_dim: int
    init_scale: float = math.log(1 / 0.07)
    init_bias: float | None = None
    max_scale: float = SCALE_MAX
    dtype: str = "float32"

    def setup(self) -> None:
        def project(features: int, use_bias: bool) -> Dense:
            init = normal(features**-0.5)
            return Dense(self.embed_dim, use_bias, init, dtype=self.dtype)

        if self.image.project:
            self.image_proj = project(self.image.features, self.image.project_bias)
        elif self.image.features != self.embed_dim:
            raise UserError(
                f"embed_dim {self.embed_dim} and image width {self.image.features}: "
                "without a projection they are the same"
            )
        self.text_proj = project(self.text.features, self.text.project_bias)
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(self.init_scale), (), jnp.float32
        )
        if self.init_bias is not None:
            self.logit_bias = self.param(
                "logit_bias", nn.initializers.constant(self.init_bias), (), jnp.float32
            )

    @property
    def log_scale_bounds(self) -> tuple[float, float]:
        """The log scale is from the first to the second; infinite where it is free."""
        return (
            (0.0, math.log(self.max_scale)) if self.max_scale else (-jnp.inf, jnp.inf)
        )

    def image_features(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Tower output before the projection, (b, image.features) float32.

        Args:
          images: float32 (b, s, s, 3), already normalised, s the model's image_size.
          train: batch statistics from this batch, running averages updated.
          axis: mapped axis under pmap, None under jit.
        """
        images_lib.require(images, self.image.image_size)
        return self.image(images, train=train, axis=axis).astype(jnp.float32)

    def feature_map(self, images: jax.Array) -> dict[str, jax.Array]:
        """`features` of image_features, and `map` (b, h, w, image.features) float32."""
        images_lib.require(images, self.image.image_size)
        return images_lib.with_map(self.image, images)

    def encode_image(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Image embeddings (b, d) float32, not normalised."""
        x_bf = self.image_features(images, train=train, axis=axis)
        return self.image_proj(x_bf).astype(jnp.float32) if self.image.project else x_bf

    def encode_text(
        self, tokens: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Text embeddings (b, d) float32, not normalised, of int32 tokens (b, l)."""
        return self.text_proj(self.text(tokens, mask)).astype(jnp.float32)

    def temperature(self) -> tuple[jax.Array, jax.Array]:
        """(scale, bias): similarity logits are `scale * cosine + bias`."""
        scale = jnp.exp(clamp(self.logit_scale, *self.log_scale_bounds))
        bias = jnp.float32(0.0) if self.init_bias is None else self.logit_bias
        return scale, bias

    def __call__(
        self,
        images: jax.Array,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        *,
        train: bool = False,
        axis: str | None = None,
    ) -> DualOutput:
        image_bd = self.encode_image(images, train=train, axis=axis)
        text_bd = self.encode_text(tokens, mask)
        return DualOutput(image_bd, text_bd, *self.temperature())
