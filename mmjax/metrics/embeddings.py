"""Sums and differences of embeddings in one space: image - "red" + "blue".

Images and texts lie in two clusters of the sphere, apart by the modality gap (Liang et
al. 2022), so a text added to an image also moves it towards the texts. In a difference
of two texts that part cancels: subtract as many as you add.

Legend: q queries, n gallery, d embedding, k nearest.
"""

from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError

_CELLS = 1 << 22  # similarities held at a time


def check_finite(rows_d: np.ndarray, of: str) -> None:
    """Raises UserError where a vector (..., d) holds NaN or Inf.

    NaN compares false with everything, and a rank that counts better scores would call
    it perfect.
    """
    bad_n = ~np.isfinite(rows_d).all(-1)
    if bad_n.any():
        raise UserError(
            f"{of} gave NaN or Inf in {bad_n.sum()} of {bad_n.size} rows, which have "
            "no direction; the weights are broken: go back to an earlier checkpoint"
        )


def unit(rows_d: np.ndarray, of: str = "a model") -> np.ndarray:
    """Vectors (..., d) divided by their L2 norms, float32; zeros stay zeros.

    Raises:
      UserError: a vector is not finite; the message says whose they are, `of`.
    """
    rows_d = np.asarray(rows_d, np.float32)
    check_finite(rows_d, of)
    return rows_d / np.maximum(np.linalg.norm(rows_d, axis=-1, keepdims=True), 1e-12)


def combine(terms: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """Weighted sum of unit vectors, at length one again.

    Args:
      terms: (weight, vectors (..., d)); leading dimensions broadcast. The lecture's
        query is [(1, image), (-1, word), (1, other_word)].

    Raises:
      UserError: there are no terms, or a term or the sum has no direction.
    """
    if not terms:
        raise UserError("nothing to add up: give an image or a text")
    total = sum(np.float32(weight) * _directed(rows) for weight, rows in terms)
    return _directed(total)


def _directed(rows_d: np.ndarray) -> np.ndarray:
    unit_d = unit(rows_d)
    if (np.linalg.norm(np.asarray(rows_d, np.float32), axis=-1) <= 1e-6).any():
        raise UserError("a vector has no direction: its length is 0, its terms cancel")
    return unit_d


def nearest(
    queries_qd: np.ndarray,
    gallery_nd: np.ndarray,
    k: int,
    *,
    skip_q: np.ndarray | None = None,
) -> np.ndarray:
    """Positions (q, k) of the rows with the largest inner products, the best first.

    Ties are in the gallery's order. In flat memory, on the CPU: for galleries of
    thousands; `mmjax.retrieval.exact` is for more.

    Args:
      skip_q: a position that a query leaves out, such as its own image's.
    """
    least = k + (skip_q is not None)
    if not 1 <= k or len(gallery_nd) < least:
        raise UserError(
            f"{k} nearest of {len(gallery_nd)} images: give {least} or more"
        )
    nearest_qk = []
    step = max(1, _CELLS // len(gallery_nd))
    for start in range(0, len(queries_qd), step):
        scores_qn = queries_qd[start : start + step] @ gallery_nd.T
        if skip_q is not None:
            skipped = skip_q[start : start + step]
            scores_qn[np.arange(len(scores_qn)), skipped] = -np.inf
        nearest_qk.append(np.argsort(-scores_qn, axis=1, kind="stable")[:, :k])
    return np.concatenate(nearest_qk)
