"""Continuous translation: a series in one modality from a series in another.

Sound to lips, speech to gestures: the target is regressed step by step, at its own
rate, by a network that may look ahead or, causal, may not.

Legend: b rows, s steps of the source, t of the target, p and d their columns.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import tokens as losses
from mmjax.models import series
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
_SIZES = ("kind", "width", "depth", "reach", "heads", "causal", "lookahead", "speakers")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; the fields `source` and `target` are of kind sequence.

    steps, out: of the target, as its field has them: `length`, and numbers a step.
    kind, width, depth, reach, heads: of the network, see `models.series.Translator`.
    causal: whether a step of the target follows from what was heard before its end
      alone. The same network is otherwise offline: it sees the source to its end.
    lookahead: steps of the target that a causal network may wait for.
    speakers: the network is told who speaks, by the field `label`, of so many; 0: not.
    motion: weight of the squared error of changes from step to step.
    """

    couples_rows = False

    steps: int
    out: int
    kind: str = "conv"
    width: int = 64
    depth: int = 2
    reach: int = 4
    heads: int = 4
    causal: bool = False
    lookahead: int = 0
    speakers: int = 0
    motion: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in series.KINDS:
            raise ValueError(
                f"kind is {self.kind!r}{schema.suggest(self.kind, series.KINDS)}"
            )
        base.positive(self, "steps", "out", "width", "depth")
        if self.lookahead and not self.causal:
            raise ValueError(
                f"lookahead is {self.lookahead} and causal False: a network that is "
                "not causal sees all; set causal to True, or lookahead to 0"
            )
        if self.motion < 0:
            raise ValueError(f"motion is {self.motion}: use 0 or more")

    @functools.cached_property
    def model(self) -> series.Translator:
        """The Linen module, a pure function of the fields."""
        numbers = {name: getattr(self, name) for name in _SIZES}
        return series.Translator(self.out, self.steps, **numbers)

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return ("source", "target", "label" if self.speakers else "label?")

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        shapes = {name: spec[name]["shape"] for name in ("source", "target")}
        for name, shape in shapes.items():
            if len(shape) != 2:
                raise UserError(
                    f"config.data.fields.{name} has rows of {shape}: give a kind with "
                    "(steps, columns), such as sequence"
                )
        steps, out = shapes["target"]
        if steps != self.steps or (out and out != self.out):
            raise UserError(
                f"config.data.fields.target has {steps} steps of {out} numbers, and "
                f"the model {self.steps} of {self.out}: set config.task.steps and out "
                "to the field's"
            )
        seconds = {
            name: shape[0] / spec[name].get("rate", 0.0)
            for name, shape in shapes.items()
            if spec[name].get("rate", 0.0)
        }
        if len(seconds) == 2 and abs(seconds["source"] - seconds["target"]) > 1e-6:
            rate = spec["source"]["rate"]
            raise UserError(
                f"config.data.fields.source lasts {seconds['source']:g} s and target "
                f"{seconds['target']:g} s, and their steps belong together: set "
                f"source.length to {round(rate * seconds['target'])}"
            )
        if self.speakers:
            names = len(spec["label"].get("class_names", ()))
            if names > self.speakers:
                raise UserError(
                    f"config.task.speakers is {self.speakers}, and the data have "
                    f"{names}: set it to {names}"
                )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, *self._inputs(batch)))

    def _inputs(self, batch: base.Batch) -> tuple[jax.Array, ...]:
        told = (jnp.maximum(batch["label"], 0),) if self.speakers else ()
        return batch["source"], batch["source_mask"], *told

    def _terms(self, variables: Vars, batch: base.Batch) -> base.Metrics:
        """Squared errors a number of the target (b,), and of its changes in time."""
        said_btd = self.model.apply({"params": variables.params}, *self._inputs(batch))
        apart_btd, mask_bt = said_btd - batch["target"], batch["target_mask"]
        change_btd = apart_btd[:, 1:] - apart_btd[:, :-1]
        both_bt = mask_bt[:, 1:] & mask_bt[:, :-1]
        return {
            "error": losses.row_mean(jnp.square(apart_btd).mean(-1), mask_bt),
            "motion": losses.row_mean(jnp.square(change_btd).mean(-1), both_bt),
        }

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base.Metrics]]:
        """error + motion weight x motion, means over rows; both as metrics."""
        means = {k: v.mean() for k, v in self._terms(variables, batch).items()}
        loss = means["error"] + self.motion * means["motion"]
        return loss, (variables.extra, means)

    def predict(self) -> Mapping[str, base.Predict]:
        """translated: {source, source_mask, label} to (b, t, d); per row the loss."""

        def translated(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            params = {"params": variables.params}
            return self.model.apply(params, *self._inputs(batch))

        def loss(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
            terms = self._terms(variables, batch)
            return {"loss": terms["error"] + self.motion * terms["motion"], **terms}

        return {"translated": translated, "loss": loss}
