"""Which L2 weight: the grid and the search of CLIP's linear probes.

Radford et al. 2021, appendix A.3: lambda between 1e-6 and 1e6 in 96 logarithmic steps;
to save compute, a search that starts from seven values and halves the interval around
the best until eight steps a decade are reached.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluators.probe.logistic import ITERATIONS, Probe, Problem

PER_DECADE, LOW, HIGH = 8, -6, 6
STEPS = (HIGH - LOW) * PER_DECADE  # 96 steps between 97 values
COARSE = 2 * PER_DECADE  # 1e-6, 1e-4, ... 1e6
ROUGH = 1e-6  # of the objective still to go, while values of l2 are compared
METHODS = ("coarse_to_fine", "full")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The best l2 on validation data and what was tried, rising.

    probe: the classifier of the best l2, fitted on the training data alone, to
      the end; those that were compared were stopped at `ROUGH`.
    """

    probe: Probe
    l2_t: np.ndarray
    accuracy_t: np.ndarray
    iterations_t: np.ndarray
    unconverged: int


def grid() -> np.ndarray:
    """(97,) values from 1e-6 to 1e6, eight steps a decade."""
    return 10.0 ** (LOW + np.arange(STEPS + 1) / PER_DECADE)


def choose(
    problem: Problem,
    val_md: np.ndarray,
    val_labels_m: np.ndarray,
    *,
    method: str = "coarse_to_fine",
    iterations: int = ITERATIONS,
) -> Chosen:
    """The l2 with the best validation accuracy; of equals the largest.

    Raises:
      UserError: an unknown method, or no validation data.
    """
    if method not in METHODS:
        raise UserError(f"search {method!r}: use {' or '.join(METHODS)}")
    if not len(val_labels_m):
        raise UserError("no validation data to choose l2 by")
    l2s, probes = grid(), {}

    def accuracies(places: Sequence[int]) -> list[float]:
        # from the nearest larger one: there the problem is easier
        above = [k for k in probes if k > max(places)]
        start = probes[min(above)] if above else None
        how = {"start": start, "iterations": iterations, "tolerance": ROUGH}
        fitted = problem.path(l2s[list(places)], **how)
        probes.update(zip(places, fitted, strict=True))
        return [float((p.predict(val_md) == val_labels_m).mean()) for p in fitted]

    if method == "full":
        scores = dict(enumerate(accuracies(range(STEPS + 1))))
    else:
        scores = coarse_to_fine(accuracies)
    best, tried = peak(scores), sorted(scores)
    exact = problem.path(l2s[[best]], start=probes[best], iterations=iterations)
    return Chosen(
        exact[0],
        l2s[tried],
        np.asarray([scores[k] for k in tried]),
        np.asarray([probes[k].iterations for k in tried]),
        sum(not probes[k].converged for k in tried),
    )


def coarse_to_fine(
    accuracies: Callable[[Sequence[int]], Sequence[float]],
) -> dict[int, float]:
    """{place on the grid: accuracy} of all that the search looks at.

    accuracies: of places on the grid, several in a call.
    """
    places = list(range(0, STEPS + 1, COARSE))
    scores = dict(zip(places, accuracies(places), strict=True))
    step = COARSE
    while step > 1:
        step //= 2
        best = peak(scores)
        sides = [k for k in (best - step, best + step) if 0 <= k <= STEPS]
        scores |= dict(zip(sides, accuracies(sides), strict=True))
    return scores


def peak(scores: dict[int, float]) -> int:
    """The place of the best score; of equals the largest place."""
    return max(scores, key=lambda k: (scores[k], k))
