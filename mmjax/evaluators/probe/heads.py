"""Heads that few examples of a class fit, beside what the text tower knows of it.

All see rows at length one. Legend: s examples, m validation examples, c classes, d
embedding.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize
import scipy.special

Head = Callable[[np.ndarray], np.ndarray]  # rows (n, d) to logits (n, c)
# Multiples of a scale of their own, as wide as the originals' searches
_ALPHAS = tuple(np.geomspace(0.1, 100.0, 16))
_BETAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_L2S = tuple(10.0 ** np.arange(-3, 4.0))
_ITERATIONS = 300


def tip_adapter(
    rows_sd: np.ndarray, label_s: np.ndarray, text_cd: np.ndarray, scale: float
) -> Sequence[Callable[[], Head]]:
    """Tip-Adapter of Zhang et al. 2022, training-free, one head for each pair tried.

    Logits are `scale * f @ text.T + alpha * exp(-beta * (1 - f @ rows.T)) @ one_hot`
    (equations 3 to 6).
    """
    one_hot_sc = np.eye(len(text_cd))[label_s]

    def logits(alpha: float, beta: float, f_nd: np.ndarray) -> np.ndarray:
        affinity_ns = np.exp(-beta * (1 - f_nd @ rows_sd.T))
        return scale * f_nd @ text_cd.T + alpha * affinity_ns @ one_hot_sc

    return [
        functools.partial(functools.partial, logits, alpha, beta)
        for beta in _BETAS
        for alpha in _ALPHAS
    ]


def lp_plus_plus(
    rows_sd: np.ndarray, label_s: np.ndarray, text_cd: np.ndarray, scale: float
) -> Sequence[Callable[[], Head]]:
    """LP++ of Huang et al. 2024, one head for each penalty tried.

    Logits are `scale * f @ (w_c + alpha_c * text_c)` (equation 4), and the mean
    cross-entropy over w and alpha is convex. Not the paper's: L-BFGS in place of its
    block steps, and a penalty l2 / 2 * (|w|^2 + |alpha - 1|^2), without which
    separable examples have no minimum; at its largest that is the zero-shot head.
    """
    return [
        functools.partial(_fitted, l2, rows_sd, label_s, text_cd, scale) for l2 in _L2S
    ]


def _fitted(
    l2: float,
    rows_sd: np.ndarray,
    label_s: np.ndarray,
    text_cd: np.ndarray,
    scale: float,
) -> Head:
    s, (c, d) = len(rows_sd), text_cd.shape
    one_hot_sc, known_sc = np.eye(c)[label_s], rows_sd @ text_cd.T

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        w_cd, alpha_c = x[: c * d].reshape(c, d), x[c * d :]
        logits_sc = scale * (rows_sd @ w_cd.T + alpha_c * known_sc)
        log_sc = scipy.special.log_softmax(logits_sc, axis=1)
        g_sc = scale * (np.exp(log_sc) - one_hot_sc) / s
        gradient = [g_sc.T @ rows_sd + l2 * w_cd]
        gradient.append((g_sc * known_sc).sum(0) + l2 * (alpha_c - 1))
        penalty = l2 / 2 * (np.square(w_cd).sum() + np.square(alpha_c - 1).sum())
        loss = -(one_hot_sc * log_sc).sum() / s
        return loss + penalty, np.concatenate([g.ravel() for g in gradient])

    start = np.concatenate([np.zeros(c * d), np.ones(c)])
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}
    ).x
    head_cd = found[: c * d].reshape(c, d) + found[c * d :, None] * text_cd
    return lambda f_nd: scale * f_nd @ head_cd.T


HEADS = {"tip_adapter": tip_adapter, "lp_plus_plus": lp_plus_plus}


def best(
    tried: Sequence[Callable[[], Head]], val_md: np.ndarray, label_m: np.ndarray
) -> Head:
    """The head of the best accuracy on validation data; of equals the first."""
    heads = [make() for make in tried]
    hits = [(head(val_md).argmax(1) == label_m).mean() for head in heads]
    return heads[int(np.argmax(hits))]
