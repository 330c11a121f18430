"""Canonical time warping: sequences of unlike columns, aligned in a space of their own.

Legend: n and m frames, p and q columns, l steps of a path, c components, s sequences.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mmjax.alignment import pairs
from mmjax.alignment.grid import Band
from mmjax.errors import UserError
from mmjax.metrics import alignment, cca


class Map(NamedTuple):
    """A linear map into the common space."""

    mean: np.ndarray  # (p,)
    weights: np.ndarray  # (p, c)

    def __call__(self, x_np: np.ndarray) -> np.ndarray:
        """(n, c)."""
        return (x_np - self.mean) @ self.weights


class Canonical(NamedTuple):
    """What canonical time warping finds.

    cost: of the path in the common space, whose components have variance 1.
    path: int (l, s), frames of every sequence.
    maps: of every sequence into the common space.
    correlations: (c,) along the path that the last maps were fitted on.
    changes: how far the path moved in each turn, in frames.
    """

    cost: float
    path: np.ndarray
    maps: tuple[Map, ...]
    correlations: np.ndarray
    changes: list[float]


def _chosen(strength: np.ndarray, components: int, energy: float) -> int:
    """How many components: as given, or what holds this share of the squares."""
    if components:
        return min(components, len(strength))
    share = np.cumsum(strength**2) / max((strength**2).sum(), 1e-12)
    return int(np.searchsorted(share, energy - 1e-9)) + 1


def fit(
    views: Sequence[np.ndarray], *, ridge: float, components: int, energy: float
) -> tuple[tuple[Map, ...], np.ndarray]:
    """CCA of paired frames, see `mmjax.metrics.cca.fit`, with the correlations (c,).

    Covariances are (1 - ridge) C + ridge tr(C) / p I, but for a factor. Without a ridge
    two views' components have variance 1.
    """
    # A rest where there is none: columns may depend on one another, as pixels do.
    level = max(ridge / (1 - ridge), 1e-9)
    regs = [level * x_lp.var(0, ddof=1).mean() for x_lp in views]
    fitted = cca.fit(views, reg=regs)
    c = _chosen(np.maximum(fitted.correlations, 0), components, energy)
    unit = np.sqrt(len(views[0]) / (len(views[0]) - 1))
    parts = zip(fitted.means, fitted.weights, strict=True)
    maps = tuple(Map(mean, unit * w[:, :c]) for mean, w in parts)
    return maps, fitted.correlations[:c]


def correlation(x_lp: np.ndarray, y_lq: np.ndarray, *, ridge: float) -> float:
    """The first canonical correlation of paired frames; 0 where one is constant."""
    if min(np.ptp(x_lp, 0).max(), np.ptp(y_lq, 0).max()) == 0:
        return 0.0
    return float(fit((x_lp, y_lq), ridge=ridge, components=1, energy=1.0)[1][0])


def _unit(to: Map, x_lp: np.ndarray) -> Map:
    """The map whose components have variance 1 of these frames."""
    return Map(to.mean, to.weights / np.maximum(to(x_lp).std(0), 1e-12))


def uniform(counts: Sequence[int]) -> np.ndarray:
    """int (l, s): all sequences from end to end at their own constant speeds."""
    steps = max(counts)
    return np.stack([np.linspace(0, n - 1, steps).round() for n in counts], 1).astype(
        int
    )


def _principal(x_np: np.ndarray, c: int) -> np.ndarray:
    """The first principal components, of variance 1, (n, c)."""
    u, *_ = np.linalg.svd(x_np - x_np.mean(0), full_matrices=False)
    return u[:, :c] * np.sqrt(len(x_np))


def _first(
    x_np: np.ndarray, y_mq: np.ndarray, init: str, components: int
) -> np.ndarray:
    """The path that the first maps are fitted on."""
    path_l2 = uniform((len(x_np), len(y_mq)))
    if init == "uniform":
        return path_l2
    if init == "dtw":
        pairs.same_width(x_np, y_mq, ("x", "y"))
        return pairs.dtw(x_np, y_mq).path
    c = min(*x_np.shape, *y_mq.shape, components or 3)
    a_nc, b_mc = _principal(x_np, c), _principal(y_mq, c)
    a_lc, b_lc = pairs.warp(a_nc, b_mc, path_l2)
    # a principal component has no sign of its own
    return pairs.dtw(a_nc, b_mc * np.where((a_lc * b_lc).sum(0) < 0, -1, 1)).path


def _checked(sequences: Sequence[Any], names: Sequence[str], ridge: float) -> list:
    if not 0 <= ridge < 1:
        raise UserError(f"ridge is {ridge}: use 0 to less than 1")
    checked = []
    for values, name in zip(sequences, names, strict=True):
        x_np = pairs.sequence(values, name, least=3)
        still = np.flatnonzero(np.ptp(x_np, 0) == 0)
        if still.size:
            raise UserError(
                f"column {still[0]} of {name} is {x_np[0, still[0]]:g} in all frames "
                f"({still.size} such columns): leave it out, it correlates with nothing"
            )
        if not ridge and len(x_np) <= x_np.shape[1]:
            raise UserError(
                f"{name} has {len(x_np)} frames and {x_np.shape[1]} columns, which "
                "correlate with anything: give ridge above 0, or fewer columns"
            )
        checked.append(x_np)
    return checked


def ctw(
    x: Any,
    y: Any,
    *,
    ridge: float = 0.0,
    components: int = 0,
    energy: float = 0.95,
    init: Literal["uniform", "dtw", "pca"] = "uniform",
    band: Band | None = None,
    tolerance: float = 0.01,
    turns: int = 25,
) -> Canonical:
    """Canonical time warping of two sequences, whose columns need not be alike.

    Zhou and De la Torre 2009, as in the authors' code: CCA along the path, then DTW of
    what it maps to, in turns, until the path moves by `tolerance` or less. How many
    components there are is fixed by the first CCA.

    Args:
      x, y: (n,) or (n, p), and (m,) or (m, q).
      ridge: the share of a multiple of the identity in each covariance, 0 to below 1.
        Its level is the mean variance of the columns (the authors': 1), so that units
        do not matter.
      components: of the common space; 0 takes as many as hold `energy` of the sum of
        squared correlations.
      init: the first path. "uniform", end to end; "dtw", of equal columns; "pca", DTW
        of principal components of variance 1, with the signs that agree end to end.
      tolerance: frames, by `mmjax.metrics.alignment.path_error`.
      turns: of CCA and DTW, at most.

    Raises:
      UserError: a constant column, NaN, fewer frames than columns without a ridge, a
        band that does not fit.
    """
    x_np, y_mq = _checked((x, y), ("x", "y"), ridge)
    if init not in ("uniform", "dtw", "pca"):
        raise UserError(f"init is {init!r}: use 'uniform', 'dtw' or 'pca'")
    path_l2, changes = _first(x_np, y_mq, init, components), []
    for _ in range(turns):
        warped = pairs.warp(x_np, y_mq, path_l2)
        (to_x, to_y), correlations = fit(
            warped, ridge=ridge, components=components, energy=energy
        )
        components = len(correlations)
        cost, new_l2 = pairs.dtw(to_x(x_np), to_y(y_mq), band=band)
        changes.append(alignment.path_error(new_l2, path_l2))
        path_l2 = new_l2
        if changes[-1] <= tolerance:
            break
    return Canonical(cost, path_l2, (to_x, to_y), correlations, changes)


def gctw(
    sequences: Sequence[Any],
    *,
    ridge: float = 0.0,
    components: int = 0,
    energy: float = 0.95,
    tolerance: float = 0.01,
    turns: int = 25,
) -> Canonical:
    """Canonical time warping of any number of sequences onto one clock.

    After Zhou and De la Torre 2016: CCA of all sets along the current warps, then every
    sequence is aligned with the mean of what they map to. The step in time is a DTW
    (the paper's: Gauss-Newton over a basis of warps). The clock has as many frames as
    the longest sequence.

    Args:
      sequences: two or more, (n,) or (n, p) each.
      ridge, components, energy, tolerance, turns: see `ctw`.

    Raises:
      UserError: fewer than two sequences, and what `ctw` refuses.
    """
    if len(sequences) < 2:
        raise UserError(f"{len(sequences)} sequences: give 2 or more to align")
    names = [f"sequence {number}" for number in range(len(sequences))]
    xs = _checked(sequences, names, ridge)
    frames_ls, changes = uniform([len(x) for x in xs]), []
    for _ in range(turns):
        warped = [x[frames] for x, frames in zip(xs, frames_ls.T, strict=True)]
        maps, correlations = fit(
            warped, ridge=ridge, components=components, energy=energy
        )
        components = len(correlations)
        maps = [_unit(to, x) for to, x in zip(maps, warped, strict=True)]
        mean_lc = sum(to(x) for to, x in zip(maps, warped, strict=True))
        mean_lc = mean_lc / np.maximum(mean_lc.std(0), 1e-12)
        mapped = [to(x) for to, x in zip(maps, xs, strict=True)]
        found = pairs.dtw_many([mean_lc] * len(xs), mapped)
        new_ls = np.stack(
            [alignment.columns(each.path, len(mean_lc)).round() for each in found], 1
        ).astype(int)
        changes.append(float(np.abs(new_ls - frames_ls).mean()))
        frames_ls = new_ls
        if changes[-1] <= tolerance:
            break
    cost = sum(each.cost for each in found)
    return Canonical(cost, frames_ls, tuple(maps), correlations, changes)
