"""Confidence intervals by resampling examples, the same ones every time."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

LEVEL = 0.95
ENDS = 50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL)  # percentiles of the interval's ends
Statistic = Callable[[np.ndarray], Any]


def resampled(
    statistic: Statistic, n: int, *, resamples: int, seed: int
) -> list[np.ndarray]:
    """A statistic of each resample of n examples, drawn with replacement.

    statistic: from float64 weights (n,), how often each example was drawn, to values
      (k,) or one value. Of `np.ones(n)` it is the point estimate.
    """
    rng = np.random.default_rng(seed)
    weights = (
        np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        for _ in range(resamples)
    )
    return [statistic(weights_n) for weights_n in weights]


def interval(
    statistic: Statistic, n: int, *, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap: low_k and high_k around the middle 95 % of a statistic.

    NaN values (a resample that says nothing) are left out; see `resampled`.
    """
    return middle(resampled(statistic, n, resamples=resamples, seed=seed))


def middle(drawn: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """low_k and high_k around the middle 95 % of resampled values, without NaN."""
    with warnings.catch_warnings():
        # a value that no resample says anything of has NaN for its ends
        warnings.filterwarnings("ignore", "All-NaN slice")
        low_k, high_k = np.nanpercentile(np.stack(drawn), ENDS, axis=0)
    return low_k, high_k


def crossed(
    clusters: Sequence[np.ndarray], *, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Weights (n,) of examples that lie in clusters of several kinds at once.

    The pigeonhole bootstrap (Owen 2007): the clusters of each kind, such as the prompts
    and the raters of votes, are drawn with replacement, independently of the other
    kinds, and an example counts the product of its clusters' numbers. It never gives
    less than the true variance, and somewhat more where examples are independent.

    Args:
      clusters: For each kind, (n,) which cluster an example belongs to.
    """
    rng = np.random.default_rng(seed)
    kinds = [np.unique(kind_n, return_inverse=True)[1] for kind_n in clusters]
    for _ in range(resamples):
        weights_n = np.ones(len(kinds[0]))
        for kind_n in kinds:
            many = int(kind_n.max()) + 1 if len(kind_n) else 0
            drawn = rng.integers(0, many, many) if many else np.zeros(0, int)
            weights_n *= np.bincount(drawn, minlength=many)[kind_n]
        yield weights_n


def with_interval(
    names: list[str],
    statistic: Statistic,
    n: int,
    *,
    points: Any = None,
    **draw: int,
) -> dict[str, float]:
    """{name: value, name_lo: ..., name_hi: ...} for every value of the statistic.

    points: the values, where they are not the statistic of all examples once.
    """
    points_k = statistic(np.ones(n)) if points is None else points
    columns = {"": points_k}
    columns |= zip(("_lo", "_hi"), interval(statistic, n, **draw), strict=True)
    return {
        f"{name}{suffix}": float(value)
        for suffix, values_k in columns.items()
        for name, value in zip(names, values_k, strict=True)
    }


def means(rows: Mapping[str, np.ndarray], **draw: int) -> dict[str, float]:
    """Means of numbers (n,) with their intervals, by name."""
    rows_kn = np.stack(list(rows.values()))

    def statistic(weight_n: np.ndarray) -> np.ndarray:
        return rows_kn @ weight_n / weight_n.sum()

    return with_interval(list(rows), statistic, rows_kn.shape[1], **draw)


def describe(unit: str, *, resamples: int, seed: int) -> dict[str, object]:
    """What the `_lo` and `_hi` numbers are, for a result's card."""
    return {
        "level": LEVEL,
        "method": "percentile bootstrap",
        "resampled": unit,
        "resamples": resamples,
        "seed": seed,
    }
