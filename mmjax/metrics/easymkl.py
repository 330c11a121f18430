"""EasyMKL: a kernel machine that weighs many kernels (Aiolli and Donini 2015).

    machine = easymkl.fit(kernels_rnn, label_n)
    machine.predict(kernels_rmn)

A machine of two classes looks for the points of their convex hulls that are nearest to
each other, gamma, a distribution over the rows of either class (equation 3):

    min_gamma (1 - lam) gamma' Y K Y gamma + lam |gamma|^2

with K the sum of all kernels. Kernel r then weighs `gamma' Y K_r Y gamma` (equation 8),
and the machine is solved again with the weighted sum. Of several classes, each has a
machine against the others.

Legend: n training rows, m other rows, r kernels, c classes.
"""

import dataclasses

import numpy as np

from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Machine:
    """What `fit` gives.

    weights: (r, c), of kernels in the machine of each class; columns sum to 1.
    dual: (n, c), `y gamma`, divided so that the two nearest points score -1 and 1.
    bias: (c,). classes: the labels of the columns.
    scale: (r,), what each kernel is divided by: the mean of its diagonal in training.
    """

    weights: np.ndarray
    dual: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    scale: np.ndarray

    def scores(self, kernels_rmn: np.ndarray) -> np.ndarray:
        """(m, c) of kernels with the training rows."""
        scaled_rmn = kernels_rmn / self.scale[:, None, None]
        return np.einsum("rmn,rc,nc->mc", scaled_rmn, self.weights, self.dual) + (
            self.bias
        )

    def predict(self, kernels_rmn: np.ndarray) -> np.ndarray:
        """The class of the largest score, (m,)."""
        return self.classes[self.scores(kernels_rmn).argmax(1)]


def fit(kernels_rnn: np.ndarray, label_n: np.ndarray, *, lam: float = 0.1) -> Machine:
    """Weights and machines of all classes.

    Args:
      kernels_rnn: symmetric and positive semi-definite, of the training rows.
      lam: 0 looks at the nearest points alone, 1 at the means of the classes.

    Raises:
      UserError: labels that are all the same, kernels of another shape, `lam` that does
        not lie between 0 and 1.
    """
    classes_c, n = np.unique(label_n), len(label_n)
    if len(classes_c) < 2:
        raise UserError(
            f"all {n} labels are {classes_c[0]}: a classifier needs two classes or more"
        )
    if kernels_rnn.ndim != 3 or kernels_rnn.shape[1:] != (n, n):
        raise UserError(
            f"kernels {kernels_rnn.shape} and {n} labels: give (kernels, {n}, {n})"
        )
    if not 0 < lam <= 1:
        raise UserError(f"lam is {lam}: use more than 0, and at most 1")
    scale_r = np.maximum(np.einsum("rnn->r", kernels_rnn) / n, 1e-12)
    scaled_rnn = kernels_rnn / scale_r[:, None, None]
    whole_nn = scaled_rnn.mean(0)
    parts = []
    for number in classes_c[1:] if len(classes_c) == 2 else classes_c:
        sign_n = np.where(np.asarray(label_n) == number, 1.0, -1.0)
        first_n = sign_n * nearest(whole_nn, sign_n, lam)
        weight_r = np.einsum("n,rnm,m->r", first_n, scaled_rnn, first_n, optimize=True)
        weight_r = np.maximum(weight_r, 0) / np.maximum(weight_r, 0).sum()
        joint_nn = np.tensordot(weight_r, scaled_rnn, 1)
        dual_n = sign_n * nearest(joint_nn, sign_n, lam)
        ends = [(dual_n * (sign_n == s)) @ joint_nn @ dual_n for s in (1.0, -1.0)]
        # the negative point's weights sum to -1, so its score has the other sign
        high, low = ends[0], -ends[1]
        half = max((high - low) / 2, 1e-12)
        parts.append((weight_r, dual_n / half, -(high + low) / 2 / half))
    if len(classes_c) == 2:
        weight_r, dual_n, bias = parts[0]
        parts = [(weight_r, -dual_n, -bias), parts[0]]
    weights, duals, biases = (np.stack(part, -1) for part in zip(*parts, strict=True))
    return Machine(weights, duals, biases, classes_c, scale_r)


def nearest(
    kernel_nn: np.ndarray, sign_n: np.ndarray, lam: float, *, iterations: int = 500
) -> np.ndarray:
    """The distributions gamma over rows of sign 1 and of sign -1, (n,).

    Accelerated projected gradient (Beck and Teboulle 2009), begun again where it
    overshoots.
    """
    matrix_nn = (1 - lam) * kernel_nn * np.outer(sign_n, sign_n)
    matrix_nn[np.diag_indices(len(sign_n))] += lam
    # the largest row sum is no less than the largest eigenvalue
    rate = 1 / np.abs(matrix_nn).sum(1).max()
    sides = [np.flatnonzero(sign_n == s) for s in (1.0, -1.0)]

    def projected(x_n: np.ndarray) -> np.ndarray:
        out_n = np.empty_like(x_n)
        for side in sides:
            out_n[side] = to_simplex(x_n[side])
        return out_n

    gamma_n = projected(np.zeros(len(sign_n)))
    ahead_n, momentum = gamma_n, 1.0
    for _ in range(iterations):
        new_n = projected(ahead_n - rate * (matrix_nn @ ahead_n))
        if np.abs(new_n - gamma_n).max() < 1e-9:
            return new_n
        if (ahead_n - new_n) @ (new_n - gamma_n) > 0:
            momentum = 1.0
        after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead_n = new_n + (momentum - 1) / after * (new_n - gamma_n)
        gamma_n, momentum = new_n, after
    return gamma_n


def to_simplex(x_n: np.ndarray) -> np.ndarray:
    """The nearest distribution to a vector (Duchi et al. 2008, figure 1)."""
    sorted_n = np.sort(x_n)[::-1]
    excess_n = (np.cumsum(sorted_n) - 1) / np.arange(1, len(x_n) + 1)
    return np.maximum(x_n - excess_n[np.flatnonzero(sorted_n > excess_n)[-1]], 0)
