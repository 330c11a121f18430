"""Classes of images: a network of our own, to judge generated images with.

Legend: b rows, h w pixels, f features, c classes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models import classifier
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Task(base.Normalised):
    """Fields are `config.task`; the data need labels and no text.

    image: the tower, its `kind` (`mmjax.models.presets.IMAGE_KINDS`) and fields.
    classes: how many there are; a label beyond them ends the run as a loss of NaN.
    linear: a plain linear head in place of scaled cosines.
    smoothing: share of the target spread over all classes (Szegedy et al. 2016, 7).
    """

    couples_rows = False
    reads = ("image", "label?")

    classes: int
    image_size: int
    image: dict = dataclasses.field(default_factory=lambda: {"kind": "conv"})
    act: str = "gelu"
    linear: bool = False
    dtype: str = "float32"
    smoothing: float = 0.0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}: give 2 or more")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}: use 0 to less than 1")

    @functools.cached_property
    def model(self) -> classifier.Classifier:
        """The Linen module, a pure function of the fields."""
        return classifier.build(
            self.image,
            classes=self.classes,
            image_size=self.image_size,
            act=self.act,
            linear=self.linear,
            dtype=self.dtype,
        )

    def bounded(self, params: PyTree) -> PyTree:
        """See mmjax.tasks.base.Task; a linear head has no scale."""
        return params if self.linear else super().bounded(params)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        base.check_image(spec, self.image_size, "image_size")
        names = spec.get("label", {}).get("class_names", ())
        if len(names) > self.classes:
            raise UserError(
                f"the data have {len(names)} classes, and the model {self.classes}: "
                f"set config.task.classes to {len(names)}"
            )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, self._pixels(batch)))

    def _terms(
        self, logits_bc: jax.Array, label_b: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy in nats and hits, both (b,), 0 in rows without a class (-1)."""
        log_bc = jax.nn.log_softmax(logits_bc)
        # mode fill: NaN for a label beyond the classes, where a clamp would hide it
        place_b1 = jnp.maximum(label_b, 0)[:, None]
        picked_b = jnp.take_along_axis(log_bc, place_b1, 1, mode="fill")[:, 0]
        target_b = (1 - self.smoothing) * picked_b + self.smoothing * log_bc.mean(1)
        known_b = label_b >= 0
        hit_b = (logits_bc.argmax(1) == label_b) & known_b
        return jnp.where(known_b, -target_b, 0.0), hit_b.astype(jnp.float32)

    def loss(
        self, variables: Vars, batch: Mapping[str, jax.Array], ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        """Mean over all rows; one without a class counts as a row of loss 0."""
        logits_bc, extra = self._train(variables, ctx, self._pixels(batch))
        loss_b, hit_b = self._terms(logits_bc, self._labels(batch))
        return loss_b.mean(), (extra, {"accuracy": hit_b.mean()})

    def _labels(self, batch: base.Batch) -> jax.Array:
        if "label" not in batch:
            raise UserError(
                "the data have no labels, which a classifier learns: choose a source "
                "with class names"
            )
        return batch["label"]

    def predict(self) -> Mapping[str, base.Predict]:
        """logits (b, c), features (b, f), and per row loss (b,) and accuracy (b,)."""

        def image(batch: base.Batch) -> tuple[jax.Array]:
            return (self._pixels(batch),)

        logits = self._call("__call__", image)

        def loss(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
            loss_b, hit_b = self._terms(
                logits(variables, batch, ctx), self._labels(batch)
            )
            return {"loss": loss_b, "accuracy": hit_b}

        features = self._call("features", image)
        feature_map = self._call("feature_map", image)
        return {
            "logits": logits,
            "features": features,
            "feature_map": feature_map,
            "loss": loss,
        }
