"""Co-training (Blum and Mitchell 1998): two views that label rows for each other.

Legend: n rows, d columns of a view, c classes, l labelled rows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import linalg

from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """One normal distribution a class, of one covariance, and equal priors.

    The covariance is shrunk towards its mean variance (Friedman 1989, with lambda 1).
    """

    weights_dc: np.ndarray
    bias_c: np.ndarray

    def log_posterior(self, x_nd: np.ndarray) -> np.ndarray:
        """log p(class | row), (n, c)."""
        score_nc = x_nd @ self.weights_dc + self.bias_c
        most_n1 = score_nc.max(1, keepdims=True)
        total_n1 = np.exp(score_nc - most_n1).sum(1, keepdims=True)
        return score_nc - most_n1 - np.log(total_n1)


def fit(
    x_nd: np.ndarray, label_n: np.ndarray, classes: int, *, shrink: float = 0.5
) -> Gaussian:
    """The classifier of labels 0 to `classes` - 1.

    Raises:
      UserError: a class has no row, or `shrink` is not in (0, 1].
    """
    if not 0 < shrink <= 1:
        raise UserError(f"shrink is {shrink}: use more than 0, at most 1")
    count_c = np.bincount(label_n, minlength=classes)
    if count_c.min() < 1:
        raise UserError(
            f"class {count_c.argmin()} of {classes} has no labelled row: give one or "
            "more of every class"
        )
    own_nc = np.eye(classes)[label_n]
    mean_cd = own_nc.T @ x_nd / count_c[:, None]
    inside_nd = x_nd - mean_cd[label_n]
    covariance_dd = inside_nd.T @ inside_nd / len(x_nd)
    spread = max(np.trace(covariance_dd) / len(covariance_dd), 1e-12)
    covariance_dd *= 1 - shrink
    covariance_dd[np.diag_indices(len(covariance_dd))] += shrink * spread
    weights_dc = linalg.solve(covariance_dd, mean_cd.T, assume_a="pos")
    return Gaussian(weights_dc, -0.5 * (mean_cd.T * weights_dc).sum(0))


def co_train(
    views: Sequence[np.ndarray],
    label_n: np.ndarray,
    known_n: np.ndarray,
    classes: int,
    *,
    rounds: int = 30,
    pool: int = 150,
    grow: int = 1,
    shrink: float = 0.5,
    seed: int = 0,
) -> list[Gaussian]:
    """The classifier of each of two views after co-training (their table 1).

    In a round each view's classifier labels the `grow` rows of every class that it is
    surest of, out of a pool of rows without labels, and both views learn from them.
    A row that both pick has the label of the surer one.

    Args:
      views: two arrays (n, d) of the same rows.
      label_n: classes; only those of `known_n`, bool (n,), are read.
      rounds: at most; it ends when no row is left.
      pool: rows of the pool, filled up from the others in a random order.

    Raises:
      UserError: see `fit`.
    """
    first, second = (np.asarray(x, np.float64) for x in views)
    label_n, known_n = np.where(known_n, label_n, -1), known_n.copy()
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~known_n))
    for _ in range(rounds):
        waiting = order[~known_n[order]][:pool]
        if not len(waiting):
            break
        sure = []
        for x_nd in (first, second):
            model = fit(x_nd[known_n], label_n[known_n], classes, shrink=shrink)
            log_wc = model.log_posterior(x_nd[waiting])
            best_w = log_wc.argmax(1)
            for c in range(classes):
                rows = np.flatnonzero(best_w == c)
                rows = rows[np.argsort(-log_wc[rows, c], kind="stable")[:grow]]
                sure += [(log_wc[w, c], waiting[w], c) for w in rows]
        for _, row, c in sorted(sure):  # the surest last
            label_n[row], known_n[row] = c, True
    return [
        fit(x_nd[known_n], label_n[known_n], classes, shrink=shrink)
        for x_nd in (first, second)
    ]
