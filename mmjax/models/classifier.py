"""One image tower and a linear head: classes of pictures.

Legend: b rows, h w pixels, f features, c classes.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.nn.dense import Dense


class Classifier(nn.Module):
    """Logits from the features of an image tower of `presets.IMAGE_KINDS`.

    Parameters: `tower/...` and `head/kernel`, `head/bias`; a ResNet tower adds
    `batch_stats`: call it in training with `mutable=["batch_stats"]`.
    """

    tower: nn.Module
    classes: int
    dtype: str = "float32"

    def setup(self) -> None:
        # Even odds at first, whatever the features are.
        zeros = nn.initializers.zeros
        self.head = Dense(self.classes, True, zeros, zeros, dtype=self.dtype)

    def features(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """What the head sees: (b, f) float32 of float32 images (b, h, w, 3)."""
        size = self.tower.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UserError(
                f"images are {images.shape}, the model takes (b, {size}, {size}, 3): "
                "resize them, or build the model with another image_size"
            )
        return self.tower(images, train=train, axis=axis).astype(jnp.float32)

    def __call__(
        self, images: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Logits (b, c) float32."""
        features_bf = self.features(images, train=train, axis=axis)
        return self.head(features_bf).astype(jnp.float32)


def build(
    image: Mapping[str, Any],
    *,
    classes: int,
    image_size: int,
    act: str = "gelu",
    dtype: str = "float32",
) -> Classifier:
    """A classifier whose tower is a mapping of `kind` and the kind's own fields.

    image: `kind` "conv", "resnet" or "vit", and fields of `ConvTower`, `ResNet` or
      `ViT`; `act` and `dtype` go to the tower where it has such a field and does not
      set its own.

    Raises:
      UserError: no kind, an unknown one or an unknown key (naming the nearest).
    """
    tower = presets.image_tower(image, act=act, dtype=dtype, image_size=image_size)
    return Classifier(tower=tower, classes=classes, dtype=dtype)
