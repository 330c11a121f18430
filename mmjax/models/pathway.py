"""How the rows of a field become states of the visible layer of a Boltzmann machine.

Legend: b rows, d units of the layer, l tokens, h w pixels.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import boltzmann

_MARKS = 2  # a tokenizer's last two ids begin and end a text, and are no words


@dataclasses.dataclass(frozen=True)
class Pathway:
    """`config.task.pathways.FIELD`.

    visible: "bernoulli", "gaussian" (of variance 1) or "softmax" (counts of words).
    units: numbers of the field in a row: side^2 x channels of an image, the width of a
      vector, the ids of a text, the classes of a label.
    widths: of the hidden layers, from the bottom up.
    channels: of an image, 1 (the mean of its colours) or 3; 0 for other fields.
    words: counts of a softmax layer are scaled to this sum (5 in the paper).
    binarise: whether bits are drawn by the values, anew at every step.
    mean, std: taken from a Gaussian layer's values, before anything else.
    missing: what becomes of rows without an optional field: "zeros", or "infer", the
      layer's mean under the model (of a DBM or RBM). Empty refuses optional fields.
    """

    visible: Literal["bernoulli", "gaussian", "softmax"] = "bernoulli"
    units: int = 0
    widths: tuple[int, ...] = ()
    channels: int = 0
    words: int = 1
    binarise: bool = False
    mean: float = 0.0
    std: float = 1.0
    missing: Literal["", "zeros", "infer"] = ""

    def __post_init__(self) -> None:
        for name in ("units", "words", "std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use more than 0")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths is {self.widths}: use 1 or more units a layer")
        if self.channels not in (0, 1, 3):
            raise ValueError(
                f"channels is {self.channels}: use 1 or 3 of an image, 0 otherwise"
            )
        if self.channels and self.side**2 * self.channels != self.units:
            raise ValueError(
                f"units is {self.units} and channels {self.channels}: an image of "
                "side s has s x s x channels units"
            )
        if self.binarise and self.visible != "bernoulli":
            raise ValueError(
                f"binarise is True and visible {self.visible!r}: bits are drawn for "
                "'bernoulli'; set binarise to False"
            )

    @property
    def side(self) -> int:
        """Of an image, in pixels."""
        return math.isqrt(self.units // max(self.channels, 1))

    def check(self, name: str, spec: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises UserError where the field `name` does not fit the visible layer."""
        place, key = f"config.data.fields.{name}", f"config.task.pathways.{name}"
        kind, shape = spec[name]["kind"], spec[name]["shape"]
        if (kind == "image") != (self.channels > 0):
            raise UserError(
                f"{place} is of kind {kind!r}, and {key}.channels is {self.channels}: "
                f"use {'1 or 3' if kind == 'image' else 0}"
            )
        if kind in ("text", "texts"):
            have = spec[name].get("vocab_size", 0)
        elif kind == "label":
            have = len(spec[name].get("class_names", ()))
        else:
            have = math.prod(shape[:2] if self.channels else shape)
            have *= max(self.channels, 1)
        if have and have != self.units:  # 0 is not known yet
            raise UserError(
                f"{place} has {have} units (of shape {shape}), and {key}.units is "
                f"{self.units}: set it to {have}"
            )

    def states(
        self, batch: Mapping[str, jax.Array], name: str, keys: jax.Array
    ) -> jax.Array:
        """float32 (b, d) of the field `name`; bits are drawn by keys (b,)."""
        if f"{name}_present" in batch and not self.missing:
            raise UserError(
                f"config.data.fields.{name} is optional, and there is no rule for rows "
                f"without it: set config.task.pathways.{name}.missing to 'zeros' or "
                "'infer', or the field's optional to False"
            )
        x = batch[name]
        if f"{name}_mask" in batch and jnp.issubdtype(x.dtype, jnp.integer):
            x_bd = self._counts(x, batch[f"{name}_mask"])
        elif x.ndim == 1:
            x_bd = jax.nn.one_hot(x, self.units)  # of class -1, zeros
        else:
            x = x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0)
            x = x.mean(-1) if self.channels == 1 else x
            x_bd = (x.reshape(len(x), -1) - self.mean) / self.std
        if self.visible == "softmax":
            total_b1 = x_bd.sum(-1, keepdims=True)
            x_bd = x_bd * (self.words / jnp.maximum(total_b1, 1e-6))
        if self.binarise:
            uniform = jax.vmap(lambda key: jax.random.uniform(key, (self.units,)))
            x_bd = (uniform(keys) < x_bd).astype(jnp.float32)
        return x_bd

    def _counts(self, ids_bl: jax.Array, mask_bl: jax.Array) -> jax.Array:
        """How often every id occurs, (b, d), in a text or in several, (b, texts, l)."""
        ids_bl, mask_bl = (x.reshape(len(x), -1) for x in (ids_bl, mask_bl))
        rows_b1 = jnp.arange(len(ids_bl))[:, None]
        words_bl = (mask_bl & (ids_bl < self.units - _MARKS)).astype(jnp.float32)
        empty_bd = jnp.zeros((len(ids_bl), self.units))
        return empty_bd.at[rows_b1, ids_bl].add(words_bl)

    def image(self, x_bd: jax.Array) -> jax.Array:
        """Values of the layer as images in [0, 1], float (b, side, side, 3)."""
        shape = len(x_bd), self.side, self.side, self.channels
        x_bhwc = (x_bd * self.std + self.mean).reshape(shape)
        return jnp.broadcast_to(jnp.clip(x_bhwc, 0, 1), (*shape[:3], 3))

    def filters(self, weight_du: jax.Array, unit_p: jax.Array) -> jax.Array:
        """Weights of units as images (p, side, side, 3), each over its largest.

        Grey is 0. Raises UserError where more are asked for than the layer has.
        """
        if len(unit_p) > weight_du.shape[1]:
            raise UserError(
                f"filters of {len(unit_p)} units are asked for, and the first layer "
                f"has {weight_du.shape[1]}: use {weight_du.shape[1]} or fewer"
            )
        weight_dp = weight_du[:, unit_p]
        most_p1 = jnp.maximum(jnp.abs(weight_dp).max(0)[:, None], 1e-12)
        plain = dataclasses.replace(self, mean=0.0, std=1.0)
        return plain.image(0.5 + 0.5 * weight_dp.T / most_p1)

    def layer(self) -> boltzmann.Layer:
        """The visible layer."""
        return boltzmann.Layer(self.visible, self.units, self.words)


def build(pathways: Mapping[str, Any]) -> dict[str, Pathway]:
    """`config.task.pathways`, by the field's name.

    Raises:
      UserError: a pathway has a key that it must not have, or a value that is none.
    """
    return {
        name: schema.from_mapping(Pathway, spec, f"config.task.pathways.{name}")
        for name, spec in pathways.items()
    }
