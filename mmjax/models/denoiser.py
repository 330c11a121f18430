"""A denoiser with what conditions it, and the door to kinds of denoisers.

    net = denoiser.build({"kind": "dit", "width": 192}, grid=8, channels=4)
    given_bhwc = net.apply(variables, x_bhwc, t_b, context_blw, mask_bl, vector_be)

A net maps noised rows (b, grid, grid, channels) and their times (b,), counted in steps
of the schedule and not always whole, to float32 of the rows' shape. It may be given a
context of texts with a mask, True where they may be read, and a vector of the row, both
of any width. A kind is a module of this package with `build(fields, where, *,
channels)`; what it builds has `check_grid(grid, where)`, which raises UserError for
rows whose side does not suit it.

Legend: b rows, l tokens, w width of a text tower, e width of a vector.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models import door
from mmjax.nn.init import normal

METHODS = ("check_grid",)
LABEL_WIDTH = 256


def build(
    spec: Mapping[str, Any], where: str = "config.task.net", *, grid: int, channels: int
) -> nn.Module:
    """The net of a spec: `kind`, and the keys that this kind knows."""
    fields = {key: spec[key] for key in spec if key != "kind"}
    kind = spec["kind"] if "kind" in spec else ""
    found = door.find(kind, METHODS, where, "denoiser")
    module = found.build(fields, where, channels=channels)
    module.check_grid(grid, where)
    return module


class Condition(NamedTuple):
    """What a net is given beside noised rows and times; all of it may be None."""

    context: jax.Array | None = None  # (b, l, w)
    mask: jax.Array | None = None  # bool (b, l)
    vector: jax.Array | None = None  # (b, e)


class Conditioned(nn.Module):
    """A net that reads texts through a tower, or labels through a table.

    Fields:
      net: see the module's head.
      text: a tower of `mmjax.models.text`, or None. The states of all its tokens are
        the context; a bag of words has none.
      classes: labels; 0 is none. One more row of the table stands for no label.
      read_padding: whether the net reads a text's padding as well.
      end_padding: whether the tower sees padding as the end of the text again, as
        transformers' CLIPTokenizer pads.
      pooled: whether the tower's pooled features are the vector.
    """

    net: nn.Module
    text: nn.Module | None = None
    classes: int = 0
    read_padding: bool = False
    end_padding: bool = False
    pooled: bool = False

    def setup(self) -> None:
        if self.classes:
            shape = (self.classes + 1, LABEL_WIDTH)
            self.label_embedding = self.param("label_embedding", normal(0.02), shape)

    def of_text(self, tokens_bl: jax.Array, mask_bl: jax.Array) -> Condition:
        """The condition of texts."""
        context = vector = None
        if self.end_padding:
            tokens_bl = jnp.where(mask_bl, tokens_bl, tokens_bl.max(1, keepdims=True))
        if hasattr(self.text, "sequence"):
            context = self.text.sequence(tokens_bl).astype(jnp.float32)
        if self.pooled:
            vector = self.text(tokens_bl, mask_bl).astype(jnp.float32)
        return Condition(context, None if self.read_padding else mask_bl, vector)

    def of_label(self, label_b: jax.Array) -> Condition:
        """The condition of labels; `classes` is that of none."""
        return Condition(vector=self.label_embedding[label_b])

    def __call__(
        self, x_bggc: jax.Array, t_b: jax.Array, condition: Condition
    ) -> jax.Array:
        """What the net gives for noised rows, float32 of their shape."""
        return self.net(x_bggc, t_b, *condition)

    def all_of(
        self,
        x_bggc: jax.Array,
        t_b: jax.Array,
        text: tuple[jax.Array, jax.Array] | None,
        label_b: jax.Array | None,
    ) -> jax.Array:
        """A call from raw conditions, for `init`."""
        condition = Condition()
        if text is not None:
            condition = self.of_text(*text)
        elif label_b is not None:
            condition = self.of_label(label_b)
        return self(x_bggc, t_b, condition)


def empty_text(tokens_bl: jax.Array, mask_bl: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens and mask of the empty text, by what texts of the same rows look like.

    It is a text's start, its end, which has the largest id, and its padding.
    """
    end_b1 = tokens_bl.max(1, keepdims=True)
    pad_b1 = jnp.where(mask_bl[:, -1:], end_b1, tokens_bl[:, -1:])
    place_l = jnp.arange(tokens_bl.shape[1])
    rest_bl = jnp.where(place_l == 1, end_b1, pad_b1)
    return jnp.where(place_l == 0, tokens_bl, rest_bl), mask_bl & (place_l < 2)
