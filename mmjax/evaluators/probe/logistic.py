"""Multinomial logistic regression with an L2 penalty, of one weight or a path of them.

    (probe,) = logistic.Problem(features_nd, labels_n).path([1.0])
    probe.predict(more_features_nd)

The objective is scikit-learn's `LogisticRegression(C=1 / l2)`:

    sum over rows of cross-entropy + l2 / 2 x |weights|^2

with the intercept free of the penalty, and for two classes (where scikit-learn holds
one vector, the difference of ours) twice `l2` on each of our two vectors, which is the
same. CLIP's linear probes (Radford et al. 2021, A.3) name `l2` lambda.

Legend: n rows, d features, r coordinates, l values of l2, c classes.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError
from mmjax.evaluators.probe import lbfgs

ITERATIONS = 1000  # the paper's
TOLERANCE = 1e-10  # of the objective still to go: 1e-5 of the weights
_ROUND = 100  # iterations between two looks at the Hessian's diagonal
_SIDE_BY_SIDE = 8  # values of l2: neighbours need about as many iterations
_CELLS = 1 << 24  # logits held at a time, float32
_SMALL = 1 << 17  # fewer logits cost less than compiling another shape does


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted classifier.

    weights_dc, bias_c: float32, a column a class of `classes_c`, the labels that
      occurred in training, rising; others are never predicted.
    objective: as in the module's docstring, over the number of rows.
    gap: estimate of the decrease left, as a share of the objective.
    converged: the gap is below the tolerance, or float32 shows no decrease.
    """

    weights_dc: np.ndarray
    bias_c: np.ndarray
    classes_c: np.ndarray
    l2: float
    objective: float
    gap: float
    iterations: int
    converged: bool

    def scores(self, features_nd: np.ndarray) -> np.ndarray:
        """Logits float32 (n, c), columns as `classes_c`."""
        return np.asarray(features_nd, np.float32) @ self.weights_dc + self.bias_c

    def predict(self, features_nd: np.ndarray) -> np.ndarray:
        """The label of the largest score of each row."""
        return self.classes_c[self.scores(features_nd).argmax(1)]


class Problem:
    """Features and labels, made ready to be fitted with many values of l2.

    Features are centred, which the free intercept takes up, and turned to the axes of
    their covariance, which leaves |weights| as it is: the Hessian is then near its
    diagonal, by which the solver scales. With fewer rows than features the optimum
    lies in the span of the rows, and only that is kept.

    Raises:
      UserError: shapes that do not match, numbers that are not finite, labels that
        are no integers or all the same.
    """

    def __init__(self, features_nd: np.ndarray, labels_n: np.ndarray):
        features_nd, labels_n = checked(features_nd, labels_n)
        self.classes_c, self._labels_n = np.unique(labels_n, return_inverse=True)
        if len(self.classes_c) < 2:
            raise UserError(
                f"all {len(labels_n)} labels are {self.classes_c[0]}: a classifier "
                "needs two classes or more"
            )
        self._mean_d = features_nd.mean(0, dtype=np.float64)
        centred_nd = features_nd - self._mean_d.astype(np.float32)
        self._axes_dr = _axes(centred_nd)
        rotated_nr = centred_nd @ self._axes_dr.astype(np.float32)
        ones_n1 = np.ones((len(labels_n), 1), np.float32)
        self._features_nr = jnp.asarray(np.concatenate([rotated_nr, ones_n1], 1))

    def path(
        self,
        l2s: Sequence[float],
        *,
        start: Probe | None = None,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
    ) -> list[Probe]:
        """A classifier for every l2, in the order given.

        They are solved from the largest l2 to the smallest, some side by side,
        each group from where the one before it ended, the first from `start`, which
        may be of other rows, such as these without the validation data.

        Raises:
          UserError: an l2 is not positive and finite.
        """
        asked_l = np.asarray(l2s, np.float64)
        if not (np.isfinite(asked_l) & (asked_l > 0)).all():
            raise UserError(f"l2 {list(l2s)} must be positive and finite")
        cells = len(self._labels_n) * len(self.classes_c)
        width = max(1, min(_SIDE_BY_SIDE, _CELLS // cells))
        order = np.argsort(-asked_l, kind="stable")
        probes: dict[int, Probe] = {}
        for first in range(0, len(order), width):
            chosen = order[first : first + width]
            near_rc = self._rotated(start)
            group = self._group(asked_l[chosen], near_rc, iterations, tolerance)
            probes |= zip(chosen.tolist(), group, strict=True)
            start = group[-1]
        return [probes[i] for i in range(len(order))]

    def _rotated(self, start: Probe | None) -> np.ndarray:
        """A classifier in the coordinates of this problem; 0 where it has none."""
        shape = self._features_nr.shape[1], len(self.classes_c)
        if start is None or not np.array_equal(start.classes_c, self.classes_c):
            return np.zeros(shape, np.float32)
        weights_dc = start.weights_dc.astype(np.float64)
        bias_1c = (start.bias_c + self._mean_d @ weights_dc)[None]
        rotated_rc = np.concatenate([self._axes_dr.T @ weights_dc, bias_1c])
        return rotated_rc.astype(np.float32)

    def _group(
        self, l2_l: np.ndarray, near_rc: np.ndarray, iterations: int, tol: float
    ) -> list[Probe]:
        count = len(l2_l)
        rows, (r, c) = len(self._labels_n), near_rc.shape
        # few numbers side by side, so that few shapes are compiled
        small = rows * c * _SIDE_BY_SIDE <= _SMALL
        wide = _SIDE_BY_SIDE if small else 1 << (count - 1).bit_length()
        wide_l = np.pad(l2_l, (0, wide - count), mode="edge")
        own_l = wide_l * (2 if c == 2 else 1) / rows
        penalty_rl = np.tile(own_l.astype(np.float32), (r, 1))
        penalty_rl[-1] = 0
        weights_rlc = jnp.repeat(jnp.asarray(near_rc)[:, None], len(wide_l), axis=1)
        arrays = self._features_nr, self._labels_n, penalty_rl
        problem = lbfgs.Problem(*map(jnp.asarray, arrays))
        taken_l, before_l = np.zeros(len(wide_l), int), np.inf
        for left in range(iterations, 0, -_ROUND):
            steps = min(left, _ROUND)
            end = lbfgs.minimize(problem, weights_rlc, tol, iterations=steps)
            weights_rlc, value_l = end.weights_rlc, np.asarray(end.objective_l, float)
            taken_l += np.asarray(end.iterations_l)
            still_l = before_l - value_l <= np.finfo(np.float32).eps * value_l
            done_l = np.asarray(end.done_l) | still_l
            before_l = value_l
            if done_l.all():
                break
        # back to the features' own coordinates
        solved_rlc, probes = np.asarray(weights_rlc), []
        for i, l2 in enumerate(l2_l):
            weights_dc = self._axes_dr @ solved_rlc[:-1, i].astype(np.float64)
            bias_c = solved_rlc[-1, i] - self._mean_d @ weights_dc
            probe = Probe(
                weights_dc.astype(np.float32),
                bias_c.astype(np.float32),
                self.classes_c,
                l2=float(l2),
                objective=float(value_l[i]),
                gap=float(end.gap_l[i]),
                iterations=int(taken_l[i]),
                converged=bool(done_l[i]),
            )
            probes.append(probe)
        return probes


def checked(
    features_nd: np.ndarray, labels_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Float32 features and integer labels; UserError where they do not fit."""
    features_nd, labels_n = np.asarray(features_nd), np.asarray(labels_n)
    if features_nd.ndim != 2 or labels_n.shape != features_nd.shape[:1]:
        raise UserError(
            f"features {features_nd.shape} and labels {labels_n.shape}: give (n, d) "
            "and (n,)"
        )
    if not labels_n.size or labels_n.dtype.kind not in "iu":
        raise UserError(
            f"labels are {labels_n.size} of {labels_n.dtype}: give one integer a row"
        )
    features_nd = features_nd.astype(np.float32)
    bad = int((~np.isfinite(features_nd)).any(1).sum())
    if bad:
        raise UserError(f"{bad} of {len(features_nd)} rows of features are not finite")
    return features_nd, labels_n


def _axes(centred_nd: np.ndarray) -> np.ndarray:
    """Orthonormal columns (d, min(n, d)) along the rows' covariance.

    Any rotation gives the same optimum, so float32 products do for the covariance.
    """
    n, d = centred_nd.shape
    if n < d:
        rows = centred_nd.astype(np.float64)
        return np.linalg.svd(rows, full_matrices=False)[2].T
    return np.linalg.eigh((centred_nd.T @ centred_nd).astype(np.float64))[1]
