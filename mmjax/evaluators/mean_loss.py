"""Means of the task's own loss and metrics over a held-out source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from mmjax.evaluators import base


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """`partial` says what becomes of the last, padded batch.

    drop: it is left out and counted on the card. A loss that couples its rows
      (InfoNCE) would take padding for negatives.
    mask: it counts by its real rows; right for losses that honour `_mask`.
    """

    partial: Literal["drop", "mask"] = "drop"


class Evaluator(base.Evaluator):
    """Calls predict "loss": (variables, batch) -> {metric: mean or (B,) per row}.

    The batches are the source's order cut at the batch size, the same every time, so
    a contrastive loss always meets the same negatives.
    """

    config_class, calls, captions = Config, {"loss": None}, True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        count = len(self.source)
        if self.config.partial == "drop" and count < self.size:
            raise self.error(
                f"source {self.source.name!r} has {count} examples and a batch needs "
                f"{self.size}: set batch_size to {count} or less, or partial to 'mask'"
            )

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        losses = self.output_shapes(vars_abstract)["loss"]
        shapes = jax.tree.map(lambda x: x.shape, losses)
        named = isinstance(losses, Mapping) and losses
        if named:
            legal = ((), (self.size,))
            shapes = {k: v for k, v in shapes.items() if v not in legal}
        if shapes or not named:
            raise self.error(
                f"'loss' must give named scalars or ({self.size},) values, gives "
                f"{shapes}"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """Means with intervals.

        Scalars are weighted by their batch's real rows, and resampled by the batch.
        """
        sums: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

        def keep(outputs, batch, valid_b):
            for name, value in outputs["loss"].items():
                value = np.asarray(value, np.float64)
                weight = valid_b if value.ndim else valid_b.sum(keepdims=True)
                sums.setdefault(name, []).append((np.atleast_1d(value), weight))
            return {}

        rows = self.collect(variables, keep=keep, full=self.config.partial == "drop")
        values, resampled = {}, set()
        for name, parts in sums.items():
            value_n, weight_n = map(np.concatenate, zip(*parts, strict=True))
            value_n, weight_n = value_n[weight_n > 0], weight_n[weight_n > 0] * 1.0
            resampled.add("batches" if len(parts) == len(value_n) else "examples")

            def mean(drawn_n, value_n=value_n, weight_n=weight_n):
                return np.atleast_1d(np.average(value_n, weights=drawn_n * weight_n))

            values |= self.intervals([name], mean, len(value_n))
        dropped = len(self.source) - sum(rows.counts.values())
        batches = {"size": self.size, "order": "as in the source"}
        card = self.card(
            rows.counts | {"batches": rows.batches, "dropped": dropped},
            dict.fromkeys(sums, "mean over examples"),
            resampled=" or ".join(sorted(resampled)),
            batches=batches | {"partial": self.config.partial},
        )
        return base.Result(values, card)
