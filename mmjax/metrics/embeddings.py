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


def unit(rows_d: np.ndarray) -> np.ndarray:
    """Vectors (..., d) at length one, float32; UserError for one of length 0 or NaN."""
    rows_d = np.asarray(rows_d, np.float32)
    length = np.linalg.norm(rows_d, axis=-1, keepdims=True)
    if not (np.isfinite(length) & (length > 1e-6)).all():
        raise UserError(
            "a vector has no direction (length 0, NaN or Inf): its terms cancel, or "
            "the weights that made them are broken"
        )
    return rows_d / length


def combine(terms: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """Weighted sum of unit vectors, at length one again.

    Args:
      terms: (weight, vectors (..., d)); leading dimensions broadcast. The lecture's
        query is [(1, image), (-1, word), (1, other_word)].

    Raises:
      UserError: there are no terms, or a sum has no direction.
    """
    if not terms:
        raise UserError("nothing to add up: give an image or a text")
    return unit(sum(np.float32(weight) * unit(rows) for weight, rows in terms))


def nearest(
    queries_qd: np.ndarray,
    gallery_nd: np.ndarray,
    k: int,
    *,
    skip_q: np.ndarray | None = None,
) -> np.ndarray:
    """Positions (q, k) of the rows with the largest inner products, the best first.

    Ties are in the gallery's order. In flat memory, on the host: for galleries of
    thousands; `mmjax.retrieval.exact` is for more.

    Args:
      skip_q: a position that a query must not find, such as its own image's.
    """
    least = k + (skip_q is not None)
    if not 1 <= k or len(gallery_nd) < least:
        raise UserError(
            f"{k} nearest of {len(gallery_nd)} images: give {least} or more"
        )
    found = []
    step = max(1, _CELLS // len(gallery_nd))
    for start in range(0, len(queries_qd), step):
        scores_qn = queries_qd[start : start + step] @ gallery_nd.T
        if skip_q is not None:
            skipped = skip_q[start : start + step]
            scores_qn[np.arange(len(scores_qn)), skipped] = -np.inf
        found.append(np.argsort(-scores_qn, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)
