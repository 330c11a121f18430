"""Ranks from similarities, ties counted against the model, in flat memory.

Legend: q queries, g gallery, d embedding, p relevant pairs.
"""

import numpy as np

TIE = 1e-6  # scores closer than this tie: float32 sums differ by their order
TIES = f"pessimistic: a score within {TIE} of the right one ranks before it"
_CELLS = 1 << 22  # similarities held at a time


def ranks(
    query_qd: np.ndarray,
    gallery_gd: np.ndarray,
    rows_p: np.ndarray,
    columns_p: np.ndarray,
) -> np.ndarray:
    """How many wrong gallery entries come before the best right one; 0 is a hit at 1.

    Args:
      rows_p, columns_p: the relevant (query, gallery) pairs, rows in rising order.

    Ties are pessimistic: a wrong entry that scores the same as the right one comes
    first, so that a model that maps everything to one point scores 0 and not 1.

    Raises:
      ValueError: a query has no relevant entry.
    """
    count = len(query_qd)
    missing = np.flatnonzero(np.bincount(rows_p, minlength=count) == 0)
    if missing.size:
        raise ValueError(f"query {missing[0]} has no relevant gallery entry")
    step = max(1, _CELLS // max(1, len(gallery_gd)))
    ranks_q = np.empty(count, np.int64)
    for start in range(0, count, step):
        stop = min(start + step, count)
        scores_qg = query_qd[start:stop] @ gallery_gd.T
        low, high = np.searchsorted(rows_p, [start, stop])
        pairs = rows_p[low:high] - start, columns_p[low:high]
        ranks_q[start:stop] = of_scores(scores_qg, *pairs)
    return ranks_q


def of_scores(
    scores_qg: np.ndarray, rows_p: np.ndarray, columns_p: np.ndarray
) -> np.ndarray:
    """`ranks` of scores that are no inner products; they are overwritten."""
    best_q = np.full(len(scores_qg), -np.inf, scores_qg.dtype)
    np.maximum.at(best_q, rows_p, scores_qg[rows_p, columns_p])
    scores_qg[rows_p, columns_p] = -np.inf
    return (scores_qg >= best_q[:, None] - TIE).sum(1)
