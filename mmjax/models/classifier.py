"""One image tower and a direction for every class.

Legend: b rows, h w pixels, f features, c classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models import images as images_lib
from mmjax.models import presets
from mmjax.models.dual_encoder import LOG_SCALE_MAX
from mmjax.nn.clamp import clamp
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal

INIT_SCALE = math.log(1 / 0.07)


class Classifier(nn.Module):
    """Logits are cosines of an image tower's features with the classes, scaled.

    The normalised softmax of Wang et al. 2017 (NormFace): pooled features differ little
    from one image to another beside what they share, and a plain linear head learns
    that difference slowly. The scale is learned as in CLIP, at most 100.

    Parameters: `tower/...`, `head/kernel` and `logit_scale`; a ResNet tower adds
    `batch_stats`: call it in training with `mutable=["batch_stats"]`.

    linear: logits are `features @ kernel + bias` instead, as in networks that were
      trained elsewhere; there is no `logit_scale` then.
    """

    tower: nn.Module
    classes: int
    linear: bool = False
    dtype: str = "float32"

    def setup(self) -> None:
        init = normal(self.tower.features**-0.5)
        self.head = Dense(self.classes, use_bias=self.linear, kernel_init=init)
        if self.linear:
            return
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(INIT_SCALE), (), jnp.float32
        )

    @property
    def log_scale_bounds(self) -> tuple[float, float]:
        """As in CLIP: a scale from 1 to 100."""
        return 0.0, LOG_SCALE_MAX

    def features(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """What the head sees: (b, f) float32 of float32 images (b, h, w, 3)."""
        images_lib.require(images, self.tower.image_size)
        return self.tower(images, train=train, axis=axis).astype(jnp.float32)

    def feature_map(self, images: jax.Array) -> dict[str, jax.Array]:
        """`features` of `features`, and the tower's `map` (b, h, w, f)."""
        images_lib.require(images, self.tower.image_size)
        return images_lib.with_map(self.tower, images)

    def __call__(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Logits (b, c) float32."""
        features_bf = self.features(images, train=train, axis=axis)
        if self.linear:
            return self.head(features_bf)
        kernel_fc, _ = self.head.weights(features_bf.shape[1])
        scale = jnp.exp(clamp(self.logit_scale, *self.log_scale_bounds))
        return scale * (_unit(features_bf, 1) @ _unit(kernel_fc, 0))


def _unit(x: jax.Array, axis: int) -> jax.Array:
    # the maximum inside the root: its gradient is finite where x is 0
    square = jnp.sum(jnp.square(x), axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def build(
    image: Mapping[str, Any],
    *,
    classes: int,
    image_size: int,
    act: str = "gelu",
    linear: bool = False,
    dtype: str = "float32",
) -> Classifier:
    """A classifier whose tower is a mapping of `kind` and the kind's own fields.

    image: `kind`, one of `presets.IMAGE_KINDS`, and that tower's fields; `act` and
      `dtype` go to the tower where it has such a field and does not set its own.
    """
    tower = presets.image_tower(image, act=act, dtype=dtype, image_size=image_size)
    return Classifier(tower=tower, classes=classes, linear=linear, dtype=dtype)
