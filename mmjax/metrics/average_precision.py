"""Average precision and precision at N of rankings that tie, such as Hamming ranks.

Ties are in no order: a value is its mean over all orders of the tied entries (McSherry
and Najork 2008), where a sort would take the gallery's order for a ranking.

Legend: q queries, g gallery, t groups of tied entries, in order of rank.
"""

from collections.abc import Sequence

import numpy as np


def average_precision(distance_g: np.ndarray, relevant_g: np.ndarray) -> float:
    """Mean of the precision at every relevant entry, the nearest first.

    0 where nothing is relevant. Of a group of n entries with r relevant, N entries and
    R relevant ones before it, the mean is (r / n) sum_i (R + 1 + (i - 1) s) / (N + i)
    over i = 1..n, s = (r - 1) / (n - 1).
    """
    size_t, hits_t = _groups(distance_g, relevant_g)
    total = hits_t.sum()
    if not total:
        return 0.0
    before_t, right_t = np.cumsum(size_t) - size_t, np.cumsum(hits_t) - hits_t
    slope_t = (hits_t - 1) / np.maximum(size_t - 1, 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(relevant_g) + 1))])
    sums_t = harmonic[before_t + size_t] - harmonic[before_t]
    inside_t = slope_t * size_t + (right_t + 1 - slope_t * (1 + before_t)) * sums_t
    return float((hits_t / size_t * inside_t).sum() / total)


def precision_at(
    distance_g: np.ndarray, relevant_g: np.ndarray, at: Sequence[int]
) -> np.ndarray:
    """The share of relevant entries among the N nearest, of every N of `at`.

    N above the gallery's size is the whole gallery.
    """
    size_t, hits_t = _groups(distance_g, relevant_g)
    ends = np.concatenate([[0], np.cumsum(size_t)])
    right = np.concatenate([[0], np.cumsum(hits_t)])
    most = np.minimum(at, ends[-1])
    return np.interp(most, ends, right) / most


def _groups(
    distance_g: np.ndarray, relevant_g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many entries every tied group has, and how many of them are relevant."""
    order_g = np.argsort(distance_g, kind="stable")
    sorted_g = distance_g[order_g]
    starts_t = np.flatnonzero(np.r_[True, sorted_g[1:] != sorted_g[:-1]])
    hits_t = np.add.reduceat(np.asarray(relevant_g, np.int64)[order_g], starts_t)
    return np.diff(np.r_[starts_t, len(sorted_g)]), hits_t
