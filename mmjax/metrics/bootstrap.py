"""Confidence intervals by resampling examples, the same ones every time."""

import warnings
from collections.abc import Callable

import numpy as np

LEVEL = 0.95
Statistic = Callable[[np.ndarray], np.ndarray]


def interval(
    statistic: Statistic, n: int, *, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap: the middle 95 % of a statistic over resampled examples.

    Args:
      statistic: from weights (n,), how often each example was drawn, to values (k,).
        Of `np.ones(n)` it is the point estimate.
      n: how many examples there are; each resample draws n with replacement.

    Returns:
      low_k and high_k. NaN values (a resample that says nothing) are left out.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        counts_n = np.bincount(rng.integers(0, n, n), minlength=n)
        drawn.append(statistic(counts_n.astype(np.float64)))
    tail = 50 * (1 - LEVEL)
    with warnings.catch_warnings():
        # a value that no resample says anything of has NaN for its ends
        warnings.filterwarnings("ignore", "All-NaN slice")
        low_k, high_k = np.nanpercentile(np.stack(drawn), [tail, 100 - tail], axis=0)
    return low_k, high_k


def with_interval(
    names: list[str], statistic: Statistic, n: int, *, resamples: int, seed: int
) -> dict[str, float]:
    """{name: value, name_lo: ..., name_hi: ...} for every value of the statistic."""
    points_k = statistic(np.ones(n))
    bounds = interval(statistic, n, resamples=resamples, seed=seed)
    values = dict(zip(names, map(float, points_k), strict=True))
    for suffix, bound_k in zip(("lo", "hi"), bounds, strict=True):
        pairs = zip(names, bound_k, strict=True)
        values |= {f"{name}_{suffix}": float(v) for name, v in pairs}
    return values


def describe(unit: str, *, resamples: int, seed: int) -> dict[str, object]:
    """What the `_lo` and `_hi` numbers are, for a result's card."""
    return {
        "level": LEVEL,
        "method": "percentile bootstrap",
        "resampled": unit,
        "resamples": resamples,
        "seed": seed,
    }
