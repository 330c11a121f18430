"""Choosing among candidates by a contrastive model: best of K, as DALL-E does.

Ramesh et al. 2021, section 2.6: of K images drawn for a caption, those that CLIP
scores highest are shown. The pools of different K are nested: K = 8 means the first 8
of the same candidates that K = 64 looks at.

Legend: p prompts, k candidates of each, d embedding, s pool sizes, n picked, e edges.
"""

from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError


def clip_scores(image_pkd: np.ndarray, text_pd: np.ndarray) -> np.ndarray:
    """Cosines (p, k) of every candidate with its own caption, float32.

    Embeddings need not be of unit length. One that is not finite, or is zero, scores
    -inf, so that it is picked last.
    """
    image_pkd = np.asarray(image_pkd, np.float32)
    text_pd = np.asarray(text_pd, np.float32)
    fits = image_pkd.ndim == 3 and text_pd.shape == image_pkd.shape[::2]
    if not fits:
        raise UserError(
            f"images embed as {image_pkd.shape} and captions as {text_pd.shape}: give "
            "(p, k, d) and (p, d)"
        )
    dots_pk = np.einsum("pkd,pd->pk", image_pkd, text_pd)
    lengths_pk = (
        np.linalg.norm(image_pkd, axis=2) * np.linalg.norm(text_pd, axis=1)[:, None]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        scores_pk = dots_pk / lengths_pk
    return np.where(np.isfinite(scores_pk), scores_pk, -np.inf).astype(np.float32)


def top(scores_pk: np.ndarray, n: int, *, pool: int | None = None) -> np.ndarray:
    """The `n` best of the first `pool` candidates (None: all), best first: (p, n).

    Equal scores keep the candidates' order, so that a pick does not depend on how many
    more were drawn than looked at.
    """
    scores_pk = _matrix(scores_pk)
    size = scores_pk.shape[1] if pool is None else pool
    if not 1 <= n <= size <= scores_pk.shape[1]:
        raise UserError(
            f"the {n} best of the first {size} of {scores_pk.shape[1]} candidates: "
            "draw more, or ask for fewer"
        )
    return np.argsort(-scores_pk[:, :size], axis=1, kind="stable")[:, :n]


def best_of(scores_pk: np.ndarray, pools: Sequence[int]) -> np.ndarray:
    """The best of the first K candidates, for every K of `pools`: (p, s)."""
    picked = [top(scores_pk, 1, pool=pool)[:, 0] for pool in pools]
    return np.stack(picked, axis=1)


def chosen(values_pk: np.ndarray, index_pn: np.ndarray) -> np.ndarray:
    """What was picked: values (p, k, ...) at candidates (p, n) -> (p, n, ...)."""
    return values_pk[np.arange(len(index_pn))[:, None], index_pn]


def _matrix(scores_pk: np.ndarray) -> np.ndarray:
    scores_pk = np.asarray(scores_pk)
    if scores_pk.ndim != 2 or not scores_pk.size:
        raise UserError(f"scores are {scores_pk.shape}: give (prompts, candidates)")
    return np.where(np.isnan(scores_pk), -np.inf, scores_pk)
