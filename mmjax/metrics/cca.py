"""Canonical correlation analysis in closed form, of two views or more, in float64.

    fitted = cca.fit((a_nd, b_ne), components=50, reg=1e-4)
    fitted.held_out((more_a_nd, more_b_ne)).sum()

Directions come from the training rows alone. `held_out` is the correlation of other
rows along them, so it can be negative; `fitted.correlations` are the canonical ones of
the training rows, which rise with the number of columns whatever the data.

Kernel CCA is linear CCA of random features (Lopez-Paz et al. 2014; `fourier` of Rahimi
and Recht 2007, `nystroem` of Williams and Seeger 2001):

    features = cca.fourier(a_nd, width=2000, scale=8.0, seed=0)
    features(a_nd)  # (n, 2000), a view of `fit`

Legend: n rows, d e columns of a view, k components, m random features, v views.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import linalg

from mmjax.errors import UserError

Views = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Directions of every view: codes are `(x_nd - mean_d) @ weights_dk`.

    correlations: float64 (k,), falling: of the training rows, regularised. For three
      views or more, (lambda - 1) / (v - 1) of MAXVAR's eigenvalues lambda, which is
      the correlation where there are two.
    """

    means: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    correlations: np.ndarray

    def codes(self, views: Views) -> list[np.ndarray]:
        """Every view's rows along its directions, (n, k)."""
        parts = zip(views, self.means, self.weights, strict=True)
        return [(np.asarray(x, np.float64) - mean) @ w for x, mean, w in parts]

    def held_out(self, views: Views) -> np.ndarray:
        """Correlations (k,) of rows that may be other than those of the fit."""
        return correlations(self.codes(_checked(views)))


def correlations(codes: Views) -> np.ndarray:
    """The correlation of each column, (k,), the mean over pairs of views.

    A column that is constant in a view correlates with nothing: 0.
    """
    return weighted(codes)(np.ones(len(codes[0])))


def weighted(codes: Views) -> Callable[[np.ndarray], np.ndarray]:
    """`correlations` as a function of the rows' weights (n,), for the bootstrap."""
    centred = []
    for x_nk in codes:
        x_nk = np.asarray(x_nk, np.float64)
        moved_nk = x_nk - x_nk.mean(0)
        floor_k = 1e-12 * np.linalg.norm(x_nk, axis=0)
        varies_k = np.linalg.norm(moved_nk, axis=0) > floor_k
        centred.append(np.where(varies_k, moved_nk, 0.0))
    pairs = list(itertools.combinations(range(len(centred)), 2))
    products = [x * x for x in centred] + [centred[i] * centred[j] for i, j in pairs]
    moments_nm = np.concatenate([*centred, *products], axis=1)

    def statistic(weight_n: np.ndarray) -> np.ndarray:
        parts = np.split(
            weight_n @ moments_nm / weight_n.sum(), len(centred) * 2 + len(pairs)
        )
        means, squares = parts[: len(centred)], parts[len(centred) :]
        variances = [q - m * m for q, m in zip(squares, means, strict=False)]
        out = []
        for (i, j), joint_k in zip(pairs, squares[len(centred) :], strict=True):
            scale_k = np.sqrt(np.maximum(variances[i] * variances[j], 0))
            product_k = joint_k - means[i] * means[j]
            out.append(product_k / np.where(scale_k > 0, scale_k, np.inf))
        return np.mean(out, axis=0)

    return statistic


def fit(
    views: Views, components: int | None = None, *, reg: float | Sequence[float] = 1e-4
) -> Fitted:
    """Linear CCA (Hotelling 1936); of three views or more, MAXVAR (Kettenring 1971).

    Two views: with C_aa = L_a L_a' and C_bb = L_b L_b', both with `reg` on their
    diagonals, the singular vectors of T = L_a^-1 C_ab L_b^-T. More: the eigenvectors of
    the block matrix of all T, whose own blocks are identities; of two views they would
    be the same directions.

    Args:
      views: arrays (n, d) of the same n rows; covariances divide by n - 1.
      components: how many; None is as many as the narrowest view has columns.
      reg: what is added to the diagonals of the covariances, of all views or of each.

    Raises:
      UserError: views of different lengths or with numbers that are not finite, more
        components than a view has columns; rows that are too few, columns that are
        constant or linearly dependent, where `reg` is 0.
    """
    return _solve(*whitened(views, components, reg), components)


def null(
    train: Views,
    test: Views,
    components: int | None = None,
    *,
    reg: float | Sequence[float] = 1e-4,
    repeats: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Held-out total correlations (repeats,) where training rows are not paired.

    Every repeat fits on training rows whose partners are permuted, and is judged on
    the pairs of `test`: what the fit finds where there is nothing to find.
    """
    centred, means, halves = whitened(train, components, reg)
    rng = np.random.default_rng(seed)
    totals = []
    for _ in range(repeats):
        drawn = [centred[0], *(x[rng.permutation(len(x))] for x in centred[1:])]
        fitted = _solve(drawn, means, halves, components)
        totals.append(fitted.held_out(test).sum())
    return np.asarray(totals)


def whitened(
    views: Views, components: int | None, reg: float | Sequence[float]
) -> tuple[Views, Views, Views]:
    """Centred rows (n, d) of every view, its mean (d,) and its whitener (d, d)."""
    views = _checked(views)
    regs = np.broadcast_to(np.asarray(reg, np.float64), len(views))
    _check_size(views, components, regs)
    means = [x.mean(0) for x in views]
    centred = [x - mean for x, mean in zip(views, means, strict=True)]
    halves = [_whitener(x, r) for x, r in zip(centred, regs, strict=True)]
    return centred, means, halves


def _checked(views: Views) -> list[np.ndarray]:
    """Views as float64 (n, d)."""
    views = [np.asarray(x, np.float64) for x in views]
    if len(views) < 2 or any(x.ndim != 2 for x in views):
        shapes = [x.shape for x in views]
        raise UserError(f"views have shapes {shapes}: give two or more, each (n, d)")
    lengths = [len(x) for x in views]
    if len(set(lengths)) > 1:
        raise UserError(
            f"views have {lengths} rows: row i of every view must be of the same "
            "record, so give as many of each"
        )
    for number, x in enumerate(views):
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if bad.size:
            raise UserError(
                f"view {number}: {bad.size} of {len(x)} rows have numbers that are not "
                f"finite, first row {bad[0]}: leave these rows out of every view"
            )
    return views


def _check_size(views: Views, components: int | None, regs: np.ndarray) -> None:
    narrow = min(x.shape[1] for x in views)
    if components is not None and not 1 <= components <= narrow:
        raise UserError(
            f"{components} components of views that have "
            f"{[x.shape[1] for x in views]} columns: use 1 to {narrow}"
        )
    for number, (x, r) in enumerate(zip(views, regs, strict=True)):
        if r < 0:
            raise UserError(f"reg is {r}: use 0 or more")
        n, d = x.shape
        if n < 2 or (r == 0 and n <= d):
            raise UserError(
                f"view {number} has {n} rows of {d} columns: give more than "
                f"{max(d, 1)} rows, or a reg above 0"
            )
        constant = np.flatnonzero(np.ptp(x, axis=0) == 0) if r == 0 else np.zeros(0)
        if constant.size:
            raise UserError(
                f"view {number}: {constant.size} of {d} columns are constant, first "
                f"column {constant[0]}: leave them out, or use a reg above 0"
            )


def _whitener(centred_nd: np.ndarray, reg: float) -> np.ndarray:
    """Upper triangular L^-T (d, d): centred rows times it are white, but for `reg`."""
    n, d = centred_nd.shape
    covariance_dd = centred_nd.T @ centred_nd / (n - 1)
    covariance_dd[np.diag_indices(d)] += reg
    try:
        lower_dd = linalg.cholesky(covariance_dd, lower=True)
    except linalg.LinAlgError:
        raise UserError(
            f"the covariance of {d} columns is singular with reg {reg:g}: columns are "
            "linearly dependent; use a larger reg, such as 1e-4 of the mean variance "
            f"({1e-4 * covariance_dd.diagonal().mean():.2g})"
        ) from None
    return linalg.solve_triangular(lower_dd, np.eye(d), lower=True).T


def _solve(
    centred: Views, means: Views, halves: Views, components: int | None
) -> Fitted:
    """The directions, from centred rows and whiteners of every view."""
    n, v = len(centred[0]), len(centred)
    k = components or min(x.shape[1] for x in centred)

    def cross(i: int, j: int) -> np.ndarray:
        return halves[i].T @ (centred[i].T @ centred[j] / (n - 1)) @ halves[j]

    if v == 2:
        u_dk, values_k, vt_ke = linalg.svd(cross(0, 1), full_matrices=False)
        directions, values_k = [u_dk[:, :k], vt_ke[:k].T], values_k[:k]
    else:
        ends = np.cumsum([x.shape[1] for x in centred])
        blocks = np.eye(ends[-1])
        for i, j in itertools.combinations(range(v), 2):
            part = np.s_[ends[i] - len(halves[i]) : ends[i]]
            other = np.s_[ends[j] - len(halves[j]) : ends[j]]
            blocks[part, other] = cross(i, j)
            blocks[other, part] = blocks[part, other].T
        last = len(blocks) - 1
        values_k, vectors = linalg.eigh(blocks, subset_by_index=(last - k + 1, last))
        values_k = (values_k[::-1] - 1) / (v - 1)
        directions = np.split(vectors[:, ::-1], ends[:-1])
    weights = [h @ part for h, part in zip(halves, directions, strict=True)]
    return Fitted(tuple(means), tuple(weights), values_k)


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """Features whose inner products are near an RBF kernel exp(-|x - y|^2 / 2 scale^2).

    fourier: sqrt(2 / m) cos(x @ points + offset). nystroem: the kernel of x with
    `points`, rows of the training data, times the inverse root of their own kernel.
    """

    points: np.ndarray  # (d, m) frequencies, or (m, d) rows
    last: np.ndarray  # (m,) phases, or (m, m) the inverse root
    scale: float

    def __call__(self, x_nd: np.ndarray) -> np.ndarray:
        """Features float64 (n, m)."""
        x_nd = np.asarray(x_nd, np.float64)
        if self.last.ndim == 1:
            return np.sqrt(2 / len(self.last)) * np.cos(x_nd @ self.points + self.last)
        return rbf(x_nd, self.points, self.scale) @ self.last


def rbf(x_nd: np.ndarray, y_md: np.ndarray, scale: float) -> np.ndarray:
    """exp(-|x - y|^2 / (2 scale^2)), (n, m)."""
    squares = (x_nd**2).sum(1)[:, None] + (y_md**2).sum(1) - 2 * x_nd @ y_md.T
    return np.exp(-np.maximum(squares, 0) / (2 * scale**2))


def fourier(x_nd: np.ndarray, *, width: int, scale: float, seed: int) -> FeatureMap:
    """`width` random Fourier features; of `x_nd`, only the number of columns counts."""
    rng = np.random.default_rng(seed)
    points_dm = rng.normal(scale=1 / scale, size=(x_nd.shape[1], width))
    return FeatureMap(points_dm, rng.uniform(0, 2 * np.pi, width), scale)


def nystroem(x_nd: np.ndarray, *, width: int, scale: float, seed: int) -> FeatureMap:
    """`width` features from as many rows of `x_nd`, drawn without replacement."""
    if width > len(x_nd):
        raise UserError(
            f"{width} Nystroem features of {len(x_nd)} rows: use {len(x_nd)} or fewer"
        )
    drawn = np.random.default_rng(seed).choice(len(x_nd), width, replace=False)
    points_md = np.asarray(x_nd, np.float64)[np.sort(drawn)]
    values, vectors = linalg.eigh(rbf(points_md, points_md, scale))
    root = 1 / np.sqrt(np.maximum(values, 1e-12 * values.max()))
    return FeatureMap(points_md, (vectors * root) @ vectors.T, scale)
