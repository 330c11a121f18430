"""Means of the task's own loss and metrics over a held-out source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Batch, Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
from mmjax.metrics import bootstrap


@dataclass(frozen=True)
class Config(EvalConfig):
    """`partial` says what becomes of the last, padded batch.

    drop: it is left out and counted on the card. A loss that couples its rows
      (InfoNCE) would take padding for negatives.
    mask: it counts by its real rows; right for losses that honour `_mask`.
    """

    partial: Literal["drop", "mask"] = "drop"


class Evaluator:
    """Calls predict "loss": (variables, batch) -> {metric: mean or (B,) per row}.

    The batches are the source's order cut at the batch size, the same every time, so
    a contrastive loss always meets the same negatives.
    """

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "mean_loss"):
        self.config = schema.from_mapping(Config, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)
        count = len(self._source)
        if self.config.partial == "drop" and count < self._size:
            raise UserError(
                f"{where}: source {self._source.name!r} has {count} examples and a "
                f"batch needs {self._size}: set batch_size to {count} or less, or "
                "partial to 'mask'"
            )

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        args = self._env, self._source, self._env.tokenizer, self._size, self._where
        batch = forward.abstract(_device_part(forward.peek(*args)))
        got = forward.output_shape(self._env, "loss", vars_abstract, batch, self._where)
        legal = ((), (self._size,))
        bad = isinstance(got, Mapping) and {
            name: getattr(value, "shape", None)
            for name, value in got.items()
            if getattr(value, "shape", None) not in legal
        }
        if bad or not got or not isinstance(got, Mapping):
            shapes = bad or jax.tree.map(lambda x: x.shape, got)
            raise UserError(
                f"{self._where}: 'loss' must give named scalars or ({self._size},) "
                f"values, gives {shapes}"
            )

    def run(self, variables: PyTree) -> Result:
        """Means with intervals; scalars are weighted by their batch's real rows."""
        env, size = self._env, self._size
        counts = {"examples": 0, "batches": 0, "dropped": 0, "broken": 0}
        rows: dict[str, list[np.ndarray]] = {}
        weights: dict[str, list[np.ndarray]] = {}
        batches = env.eval_batches(
            self._source, env.tokenizer, env.image_cfg, batch_size=size
        )
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            real = int((np.asarray(batch["_mask"]) > 0).sum())
            if real < size and self.config.partial == "drop":
                counts["dropped"] += real
                continue
            counts["broken"] += forward.broken_rows(batch)
            counts["examples"] += int(valid_b.sum())
            counts["batches"] += 1
            for name, value in env.predict["loss"](
                variables, _device_part(batch)
            ).items():
                value = np.asarray(value, np.float64)
                weight = valid_b if value.ndim else np.asarray([valid_b.sum()])
                rows.setdefault(name, []).append(np.atleast_1d(value))
                weights.setdefault(name, []).append(weight)
        if not counts["examples"]:
            raise UserError(f"{self._where}: {counts['broken']} records, all broken")
        values, unit = self._means(rows, weights)
        interval = bootstrap.describe(unit, **self._draw)
        return Result(values, self._card(counts, interval, list(rows)))

    @property
    def _draw(self) -> dict[str, int]:
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    def _means(self, rows: dict, weights: dict) -> tuple[dict[str, float], str]:
        """Scalar metrics resample whole batches, per-row ones resample rows."""
        values, units = {}, set()
        for name, parts in rows.items():
            value_n = np.concatenate(parts)
            weight_n = np.concatenate(weights[name]).astype(np.float64)
            value_n, weight_n = value_n[weight_n > 0], weight_n[weight_n > 0]
            units.add("batches" if len(parts) == sum(map(len, parts)) else "examples")

            def mean(drawn_n, value_n=value_n, weight_n=weight_n):
                return np.atleast_1d(np.average(value_n, weights=drawn_n * weight_n))

            values |= bootstrap.with_interval([name], mean, len(value_n), **self._draw)
        return values, " or ".join(sorted(units))

    def _card(self, counts: dict, interval: dict, names: list[str]) -> dict:
        return result_card.write(
            self.config,
            self._env,
            self._source,
            kind="mean_loss",
            counts=counts,
            interval=interval,
            metrics={name: "mean over examples" for name in names},
            task={
                "batches": {
                    "size": self._size,
                    "order": "as in the source",
                    "partial": self.config.partial,
                }
            },
            text=self._env.tokenizer is not None,
        )


def _device_part(batch: Batch) -> dict[str, np.ndarray]:
    # the other '_' keys are notes of the host
    return {k: v for k, v in batch.items() if k[0] != "_" or k == "_mask"}
