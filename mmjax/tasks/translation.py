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


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; the fields `source` and `target` are of kind sequence.

    steps, out: of the target, as its field has them: `length`, and numbers a step.
    kind, width, depth, reach: of the network, see `models.series.Translator`.
    causal: whether a step of the target follows from what was heard before its end
      alone. The same network is otherwise offline: it sees the source to its end.
    lookahead: steps of the target that a causal network may wait for.
    speakers: the network is told who speaks, by the field `label`, of so many; 0: not.
    """

    couples_rows = False

    steps: int
    out: int
    kind: str = "conv"
    width: int = 64
    depth: int = 2
    reach: int = 4
    causal: bool = False
    lookahead: int = 0
    speakers: int = 0

    def __post_init__(self) -> None:
        if self.kind not in series.KINDS:
            hint = schema.suggest(self.kind, series.KINDS)
            raise ValueError(
                f"kind is {self.kind!r}{hint}: use {' or '.join(series.KINDS)}"
            )
        base.positive(self, "steps", "out", "width", "depth")
        schema.at_least(0, self, "reach", "lookahead", "speakers")
        if self.kind == "lstm" and not self.causal and self.width % 2:
            raise ValueError(
                f"width is {self.width}, and LSTMs in two directions share it: use "
                f"{self.width + 1}"
            )
        if self.lookahead and not self.causal:
            raise ValueError(
                f"lookahead is {self.lookahead} and causal False: a network that is "
                "not causal sees all; set causal to True, or lookahead to 0"
            )

    @functools.cached_property
    def model(self) -> series.Translator:
        """The Linen module, a pure function of the fields."""
        return series.Translator(**dataclasses.asdict(self))

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return ("source", "target", "label" if self.speakers else "label?")

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        source, target = spec["source"], spec["target"]
        for name, one in (("source", source), ("target", target)):
            if len(one["shape"]) != 2:
                raise UserError(
                    f"config.data.fields.{name} has rows of {one['shape']}: give a "
                    "kind with (steps, columns), such as sequence"
                )
        steps, out = target["shape"]
        if steps != self.steps or (out and out != self.out):
            raise UserError(
                f"config.data.fields.target has {steps} steps of {out} numbers, and "
                f"the model {self.steps} of {self.out}: set config.task.steps and out "
                "to the field's"
            )
        rate, length = source.get("rate", 0.0), source["shape"][0]
        want = round(steps * rate / target["rate"]) if target.get("rate") else 0
        if rate and want and want != length:
            raise UserError(
                f"config.data.fields.source lasts {length / rate:g} s and target "
                f"{steps / target['rate']:g} s, and their steps belong together: set "
                f"source.length to {want}"
            )
        names = len(spec.get("label", {}).get("class_names", ()))
        if self.speakers and names > self.speakers:
            raise UserError(
                f"config.task.speakers is {self.speakers}, and the data have {names}: "
                f"set it to {names}"
            )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, *self._inputs(batch)))

    def _inputs(self, batch: base.Batch) -> tuple[jax.Array, ...]:
        told = (jnp.maximum(batch["label"], 0),) if self.speakers else ()
        return batch["source"], batch["source_mask"], *told

    def _translated(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
        return self.model.apply({"params": variables.params}, *self._inputs(batch))

    def _errors(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
        """Squared error a number of the target, (b,)."""
        apart_btd = self._translated(variables, batch, ctx) - batch["target"]
        error_bt = jnp.square(apart_btd).mean(-1)
        return {"loss": losses.row_mean(error_bt, batch["target_mask"])}

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base.Metrics]]:
        """Mean squared error over the steps of each row, then over rows."""
        error_b = self._errors(variables, batch, ctx)["loss"]
        return error_b.mean(), (variables.extra, {})

    def predict(self) -> Mapping[str, base.Predict]:
        """translated: {source, source_mask, label} to (b, t, d); per row the loss."""
        return {"translated": self._translated, "loss": self._errors}
