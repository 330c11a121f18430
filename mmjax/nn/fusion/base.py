"""What every fusion block takes and gives. Legend: see the package."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense

Arrays = Mapping[str, jax.Array]


class Wanted(NamedTuple):
    """What a model wants of its block.

    outputs: columns of the scores. steps: whether there are scores of every step, and
      not of a row alone. classes: whether scores are logits of one of the outputs.
    """

    outputs: int
    steps: bool = False
    classes: bool = True


class Fused(NamedTuple):
    """Fused features (b, t, w) and scores (b, t, k); t is 1 of a row alone."""

    features: jax.Array
    scores: jax.Array


class Base(nn.Module):
    """A block: `block(parts, masks, wanted)`.

    TAKES: "points", parts of one step, or of as many as there are labels; "series",
      parts of any lengths; "aligned", series of one length. Where labels are of steps,
      all have as many steps as the labels.
    CLASSES: whether it needs classes.
    """

    TAKES: ClassVar[str] = "points"
    CLASSES: ClassVar[bool] = False

    def __call__(self, parts: Arrays, masks: Arrays, wanted: Wanted) -> Fused:
        """Subclasses say how."""
        raise NotImplementedError

    def scored(self, features_btw: jax.Array, wanted: Wanted) -> Fused:
        """Features with linear scores; for compact methods."""
        return Fused(features_btw, Dense(wanted.outputs, name="head")(features_btw))


def side_by_side(arrays: Arrays) -> jax.Array:
    """Columns of all parts, in the order of their names."""
    return jnp.concatenate([arrays[name] for name in sorted(arrays)], -1)


def with_one(x_btd: jax.Array) -> jax.Array:
    """(b, t, d + 1), a column of ones last."""
    return jnp.concatenate([x_btd, jnp.ones((*x_btd.shape[:-1], 1), x_btd.dtype)], -1)


def mean_step(x_btd: jax.Array, mask_bt: jax.Array) -> jax.Array:
    """The mean over steps that count, (b, 1, d); zeros where none does."""
    weight_bt1 = mask_bt[..., None].astype(x_btd.dtype)
    total_b1d = (x_btd * weight_bt1).sum(1, keepdims=True)
    return total_b1d / jnp.maximum(weight_bt1.sum(1, keepdims=True), 1)
