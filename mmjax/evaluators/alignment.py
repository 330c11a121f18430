"""How far from the truth two series are aligned by what a model makes of their frames.

Legend: p pairs, n and m frames of the first and second series, d embedding.
"""

from dataclasses import dataclass

import numpy as np

from mmjax import alignment
from mmjax.evaluators import base
from mmjax.metrics import alignment as metrics

_DEFINITIONS = {
    "frame_error": "mean |j - truth|, j by DTW of the frames",
    "nearest_error": "mean |j - truth|, j the nearest frame alone",
    "uniform_error": "mean |j - truth|, j from end to end at constant speed",
    "area": "area between the path and the truth, as a share of the grid",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """open_ends: whether the first series may begin and end anywhere in the second."""

    open_ends: bool = True


class Evaluator(base.Evaluator):
    """Calls predict "frames"; records have `first`, `second` and `truth` (n, 1).

    `truth` is the frame of `second`, counted from 0, of each frame of `first`.
    """

    config_class, calls = Config, {"frames": None}

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        shapes = self.output_shapes(vars_abstract)["frames"]
        if sorted(shapes) != ["first", "second"]:
            raise self.error(f"'frames' must give first and second, gives {shapes}")
        if "truth" not in self.peek(self.source):
            raise self.error(
                f"records of {self.source.name!r} have no truth to compare with: give "
                "a source of kind warped or warps, and the field truth"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """Means over pairs with intervals; frames are the second series'."""
        pairs: list[tuple] = []

        def keep(outputs, batch, valid_b):
            for row in np.flatnonzero(valid_b):
                x_nd, y_md = (
                    np.asarray(outputs["frames"][name])[row][batch[f"{name}_mask"][row]]
                    for name in ("first", "second")
                )
                pairs.append((x_nd, y_md, batch["truth"][row, : len(x_nd), 0]))
            return {}

        rows = self.collect(variables, keep=keep)
        values_pk = errors(pairs, open_ends=self.config.open_ends)
        names = list(_DEFINITIONS)

        def mean(weight_p):
            return np.average(values_pk, axis=0, weights=weight_p)

        values = self.intervals(names, mean, len(values_pk))
        ends = {"open_ends": self.config.open_ends}
        card = self.card(rows.counts, _DEFINITIONS, resampled="pairs", **ends)
        return base.Result(values, card, dict(zip(names, values_pk.T, strict=True)))


def errors(
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]], *, open_ends: bool
) -> np.ndarray:
    """The numbers of `_DEFINITIONS` of each pair (first, second, truth), (p, 4)."""
    first, second, truths = zip(*pairs, strict=True)
    ends = {"open_begin": open_ends, "open_end": open_ends}
    found = alignment.dtw_many(first, second, **ends)
    values = []
    for (x_nd, y_md, truth_n), each in zip(pairs, found, strict=True):
        n, m = len(x_nd), len(y_md)
        apart_nm = np.square(x_nd[:, None] - y_md[None]).sum(-1)
        guesses = apart_nm.argmin(1), np.linspace(0, m - 1, n)
        corners = [[0, 0]], [[n - 1, m - 1]]
        true_l2 = np.stack([np.arange(n), truth_n.round()], 1).astype(int)
        closed = (
            np.unique(np.concatenate([corners[0], path, corners[1]]), axis=0)
            for path in (each.path, true_l2)
        )
        values.append(
            [
                metrics.frame_error(each.path, truth_n),
                *(np.abs(guess_n - truth_n).mean() for guess_n in guesses),
                metrics.area(*closed),
            ]
        )
    return np.array(values)
