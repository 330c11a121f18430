"""A linear SVM, one class against the rest or against each, with LinearSVC's objective.

    |w|^2 / 2 + bias^2 / 2 + C sum_i max(0, 1 - y_i (w x_i + bias))^2

LinearSVC is scikit-learn's, and has the rest; LIBSVM, of which many papers report, has
each pair of classes and lets them vote.

Legend: n rows, d features, c classes.
"""

import itertools

import numpy as np
from scipy import optimize

from mmjax.errors import UserError


def fit(
    x_nd: np.ndarray,
    label_n: np.ndarray,
    *,
    c: float,
    pairs: bool = False,
    iterations: int = 200,
) -> tuple[np.ndarray, np.ndarray]:
    """(weights (d + 1, c), the bias last, in float64; the classes of its columns).

    With `pairs`, the columns are pairs of classes, in `itertools.combinations`' order.

    Raises:
      UserError: labels are all the same, or C is not above 0.
    """
    classes_c = np.unique(label_n)
    if len(classes_c) < 2:
        raise UserError(
            f"all {len(label_n)} labels are {classes_c[0]}: a classifier needs two "
            "classes or more"
        )
    if not c > 0:
        raise UserError(f"C is {c}: use more than 0")
    x_nf, span_rf = _with_one(x_nd), None
    if x_nf.shape[1] > len(x_nf):  # the best weights lie in the span of the rows
        square_r, left_nr = np.linalg.eigh(x_nf @ x_nf.T)
        kept_r = square_r > 1e-12 * square_r[-1]
        left_nr, size_r = left_nr[:, kept_r], np.sqrt(square_r[kept_r])
        x_nf, span_rf = left_nr * size_r, (left_nr / size_r).T @ x_nf
    own_nc = np.asarray(label_n)[:, None] == classes_c
    sign_nc = np.where(own_nc, 1.0, -1.0)
    if pairs:  # 0 of rows of neither class, which then have no part
        first, second = _pairs(len(classes_c))
        sign_nc = own_nc[:, first].astype(float) - own_nc[:, second]
    shape = x_nf.shape[1], sign_nc.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w_fc = flat.reshape(shape)
        slack_nc = np.maximum(0, 1 - sign_nc * (x_nf @ w_fc))
        value = 0.5 * (flat @ flat) + c * np.square(slack_nc).sum()
        return value, (w_fc - 2 * c * (x_nf.T @ (sign_nc * slack_nc))).ravel()

    def curvature(flat: np.ndarray, along: np.ndarray) -> np.ndarray:
        within_nc = (sign_nc * (x_nf @ flat.reshape(shape)) < 1) & (sign_nc != 0)
        change_nc = within_nc * (x_nf @ along.reshape(shape))
        return along + 2 * c * (x_nf.T @ change_nc).ravel()

    found = optimize.minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        hessp=curvature,
        method="Newton-CG",
        options={"maxiter": iterations, "xtol": 1e-7},
    )
    w_fc = found.x.reshape(shape)
    return w_fc if span_rf is None else span_rf.T @ w_fc, classes_c


def predict(
    weights_fc: np.ndarray,
    classes_c: np.ndarray,
    x_nd: np.ndarray,
    *,
    pairs: bool = False,
) -> np.ndarray:
    """The class of the largest score of each row, or of the most votes, (n,)."""
    score_nc = _with_one(x_nd) @ weights_fc
    if pairs:
        first, second = _pairs(len(classes_c))
        winner_nc = np.where(score_nc > 0, first, second)
        counted = (np.bincount(row, minlength=len(classes_c)) for row in winner_nc)
        score_nc = np.stack(list(counted))
    return classes_c[score_nc.argmax(1)]


def _pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second class of each pair."""
    first, second = zip(*itertools.combinations(range(classes), 2), strict=True)
    return np.array(first), np.array(second)


def _with_one(x_nd: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(x_nd, np.float64), np.ones((len(x_nd), 1))], 1)
