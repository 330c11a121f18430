"""Alignment of one pair of sequences or of many, on the host: checks, paths, search.

Legend: n and m frames, d columns, l steps of a path.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.alignment import grid, paths, soft
from mmjax.alignment.grid import BIG, Band
from mmjax.errors import UserError

_ROUND = 32  # lengths are padded to multiples of it, so that few shapes are compiled


class Alignment(NamedTuple):
    """A path and its cost.

    cost: the sum over the path of squared distances of frames; its root is what other
      libraries call the DTW distance.
    path: int (l, 2), pairs of frames, from the first to the last.
    """

    cost: float
    path: np.ndarray


def sequence(values: Any, name: str, *, least: int = 1) -> np.ndarray:
    """An array of frames as float (n, d); UserError for what is no finite sequence."""
    x_nd = np.asarray(values)
    x_nd = x_nd[:, None] if x_nd.ndim == 1 else x_nd
    if x_nd.ndim != 2 or not x_nd.size or x_nd.dtype.kind not in "fiub":
        raise UserError(
            f"{name} is {x_nd.dtype} {np.shape(values)}: give numbers, (frames,) or "
            "(frames, columns)"
        )
    if len(x_nd) < least:
        raise UserError(f"{name} has {len(x_nd)} frames: give {least} or more")
    x_nd = x_nd.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(x_nd).all(1))
    if bad.size:
        raise UserError(
            f"{name} has NaN or infinite values in {bad.size} of {len(x_nd)} frames, "
            f"first in frame {bad[0]}: fill them in, or leave these frames out"
        )
    return x_nd


def same_width(x_nd: np.ndarray, y_md: np.ndarray, names: Sequence[str]) -> None:
    """UserError unless both have as many columns."""
    if x_nd.shape[1] != y_md.shape[1]:
        raise UserError(
            f"{names[0]} has {x_nd.shape[1]} columns and {names[1]} {y_md.shape[1]}: "
            "this method compares them column by column; use ctw, which finds a common "
            "space, or give equal columns"
        )


def _padded(sequences: Sequence[np.ndarray]) -> jax.Array:
    longest = -(-max(map(len, sequences)) // _ROUND) * _ROUND
    rows = np.zeros((len(sequences), longest, sequences[0].shape[1]), np.float32)
    for row, x_nd in zip(rows, sequences, strict=True):
        row[: len(x_nd)] = x_nd
    return jnp.asarray(rows)


def dtw_many(
    xs: Sequence[Any],
    ys: Sequence[Any],
    *,
    band: Band | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> list[Alignment]:
    """Aligns the pairs (xs[p], ys[p]) by dynamic time warping, all in one call.

    Args:
      xs, ys: sequences (n,) or (n, d) of any lengths, all of one width.
      band: the cells that a path may enter.
      open_begin, open_end: whether the path may begin, or end, at any frame of y. All
        frames of x are matched.

    Raises:
      UserError: no or unlike many sequences, other widths, NaN, a band that is wider
        than a sequence or that no path stays in, a band with an open end.
    """
    if len(xs) != len(ys) or not len(xs):
        raise UserError(f"{len(xs)} sequences x and {len(ys)} y: give one y to each x")
    if band and (open_begin or open_end):
        raise UserError("a band goes from end to end: leave it out, or close both ends")
    xs = [sequence(x, f"x {p}" if len(xs) > 1 else "x") for p, x in enumerate(xs)]
    ys = [sequence(y, f"y {p}" if len(ys) > 1 else "y") for p, y in enumerate(ys)]
    for other in (*xs, *ys):
        same_width(xs[0], other, ("x", "y"))
    if band:
        for x_nd, y_md in zip(xs, ys, strict=True):
            band.check(len(x_nd), len(y_md))
    # distances do not change by a shift, and float32 keeps more of what is near 0
    mean_d = np.concatenate(xs).mean(0)
    cost_nmb = _distances(*(_padded([x - mean_d for x in part]) for part in (xs, ys)))
    n_b, m_b = (jnp.asarray([len(x) for x in part]) for part in (xs, ys))
    ends = {"band": band, "open_begin": open_begin, "open_end": open_end}
    cost_b, column_b, table_knb = paths.accumulate(
        cost_nmb, n_b, m_b, keep=True, **ends
    )
    cells_bl2, steps_b = paths.backtrack(
        table_knb, n_b, column_b, open_begin=open_begin
    )
    cost_b, cells_bl2, steps_b = jax.device_get((cost_b, cells_bl2, steps_b))
    return [
        Alignment(float(cost), cells_l2[:steps][::-1])
        for cost, cells_l2, steps in zip(cost_b, cells_bl2, steps_b, strict=True)
    ]


_distances = jax.jit(functools.partial(grid.squared_distances, exact=True))


def dtw(x: Any, y: Any, **options: Any) -> Alignment:
    """Aligns two sequences (n,) or (n, d); options and errors are `dtw_many`'s.

    Sakoe and Chiba 1978.
    """
    return dtw_many([x], [y], **options)[0]


def expected(
    x: Any, y: Any, *, gamma: float = 1.0, band: Band | None = None
) -> tuple[float, np.ndarray]:
    """Soft-DTW of two sequences, and how often its paths enter each cell, (n, m).

    Paths count by exp(-cost / gamma) (Cuturi and Blondel 2017, algorithm 2). gamma is
    in squared units of the data. Errors are those of `dtw`, and gamma of 0 or less.
    """
    x_nd, y_md = sequence(x, "x"), sequence(y, "y")
    same_width(x_nd, y_md, ("x", "y"))
    if not gamma > 0:
        raise UserError(f"gamma is {gamma}: use more than 0, or dtw")
    if band:
        band.check(len(x_nd), len(y_md))
    mean_d = np.concatenate([x_nd, y_md]).mean(0)
    cost_nm1 = _distances(
        *(jnp.asarray(s - mean_d, jnp.float32)[None] for s in (x_nd, y_md))
    )
    n_1, m_1 = jnp.asarray([len(x_nd)]), jnp.asarray([len(y_md)])
    cost_nm1 = grid.inside(cost_nm1, n_1, m_1, band)
    run = jax.jit(jax.value_and_grad(lambda c: soft.of_cost(c, n_1, m_1, gamma).sum()))
    value, e_nm1 = run(cost_nm1)
    return float(value), np.asarray(e_nm1[..., 0])


def derivative(x: Any) -> np.ndarray:
    """The slopes that derivative DTW aligns, (n, d), of a sequence of 3 frames or more.

    Keogh and Pazzani 2001, equation 4: ((x_i - x_{i-1}) + (x_{i+1} - x_{i-1}) / 2) / 2;
    both ends repeat their neighbour's.
    """
    x_nd = sequence(x, "a sequence for derivative DTW", least=3)
    before, now, after = x_nd[:-2], x_nd[1:-1], x_nd[2:]
    return np.pad((now - before + (after - before) / 2) / 2, ((1, 1), (0, 0)), "edge")


def ddtw(x: Any, y: Any, **options: Any) -> Alignment:
    """Derivative DTW: `dtw` of slopes, blind to offsets (Keogh and Pazzani 2001)."""
    return dtw(derivative(x), derivative(y), **options)


def warp(x: Any, y: Any, path_l2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sequences on the clock of the path: (l, ...) each."""
    return np.asarray(x)[path_l2[:, 0]], np.asarray(y)[path_l2[:, 1]]


class Match(NamedTuple):
    """A place where a query occurs: frames start to end, both of them its own."""

    cost: float
    start: int
    end: int
    path: np.ndarray


def search(query: Any, series: Any, *, top: int = 1) -> list[Match]:
    """Finds the `top` places of a long series that are most like the query.

    Subsequence DTW (Mueller 2007, section 4.4): all of the query is matched, and the
    path begins and ends anywhere. Places do not overlap, and the best comes first;
    there may be fewer of them than `top`.

    Args:
      query: (n,) or (n, d), at most as long as the series.
      series: (m,) or (m, d).

    Raises:
      UserError: other widths, NaN, a query longer than the series, top below 1.
    """
    x_nd, y_md = sequence(query, "the query"), sequence(series, "the series")
    same_width(x_nd, y_md, ("the query", "the series"))
    if len(x_nd) > len(y_md):
        raise UserError(
            f"the query has {len(x_nd)} frames and the series {len(y_md)}: exchange "
            "them, or cut the query"
        )
    if top < 1:
        raise UserError(f"top is {top}: use 1 or more")
    n, mean_d = len(x_nd), y_md.mean(0)
    cost_nm1 = _distances(*(_padded([x - mean_d]) for x in (x_nd, y_md)))
    n_1, m_1 = jnp.asarray([n]), jnp.asarray([len(y_md)])
    *_, table_kn1 = paths.accumulate(
        cost_nm1, n_1, m_1, open_begin=True, open_end=True, keep=True
    )
    last_m = np.array(table_kn1[n - 1 : n - 1 + len(y_md), n - 1, 0])
    taken_m, matches = np.zeros(len(y_md), bool), []
    while len(matches) < top and last_m.min() < BIG:
        end = int(last_m.argmin())
        cells, steps = paths.backtrack(
            table_kn1, n_1, jnp.asarray([end]), open_begin=True
        )
        path_l2 = np.asarray(cells[0, : int(steps[0])])[::-1]
        start, cost = int(path_l2[0, 1]), float(last_m[end])
        last_m[end] = BIG
        if taken_m[start : end + 1].any():
            continue
        taken_m[start : end + 1] = True
        last_m[start : end + 1 + n // 2] = BIG  # ends so near it overlap it
        matches.append(Match(cost, start, end, path_l2))
    return matches
