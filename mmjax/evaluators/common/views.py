"""What evaluators share that compare the views of records.

Legend: n rows, d columns of a view.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.evaluators import base
from mmjax.metrics import embeddings


@dataclasses.dataclass(frozen=True)
class Rows:
    """Views by name, float32 (n, d), in the order of the predict function's.

    present: bool (n,) of every view; label: int (n,), or None without classes.
    """

    views: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    label: np.ndarray | None
    counts: Mapping[str, int]

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The first two views."""
        first, second, *_ = self.views.values()
        return first, second


class Evaluator(base.Evaluator):
    """The base of evaluators that call a predict function which gives rows by view."""

    def check(self, vars_abstract: base.PyTree) -> None:
        """See mmjax.evaluators.base."""
        for name, shapes in self.output_shapes(vars_abstract).items():
            if not isinstance(shapes, Mapping) or len(shapes) < 2:
                raise self.error(f"{name!r} must give rows by view, of two or more")

    def rows(self, variables: base.PyTree, name: str, source: Any = None) -> Rows:
        """What predict function `name` gives of a source; None is the config's."""

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            rows = {k: np.asarray(x)[valid_b] for k, x in outputs[name].items()}
            return {f"view/{k}": x.reshape(len(x), -1) for k, x in rows.items()}

        found = self.collect(variables, name, keep=keep, source=source)
        arrays = {
            k.removeprefix("view/"): x
            for k, x in found.arrays.items()
            if k.startswith("view/")
        }
        everyone_n = np.ones(found.counts["examples"], bool)
        names = [k for k in arrays if not k.endswith("_present")]
        present = {k: arrays.get(f"{k}_present", everyone_n).ravel() for k in names}
        for k in names:
            embeddings.check_finite(arrays[k], f"{self.where}: {name}")
        label_n = found.arrays.get("label")
        return Rows({k: arrays[k] for k in names}, present, label_n, found.counts)

    def require_classes(self) -> None:
        """Raises UserError unless the source's records have classes."""
        self.class_names, self.labelled = self.source.class_names, True
        if not self.class_names:
            raise self.error(
                f"source {self.source.name!r} has no class names: give one of labelled "
                "records"
            )

    def view(self, rows: Rows, name: str) -> np.ndarray:
        """A view's rows; UserError with the nearest name where there is none."""
        if name not in rows.views:
            hint = schema.suggest(name, rows.views)
            raise self.error(
                f"there is no view {name!r}{hint}: {', '.join(rows.views)}"
            )
        return rows.views[name]
