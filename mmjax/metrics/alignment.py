"""How far a path through time is from the true one.

A path is int (l, 2), pairs of frames (i, j) in order. Legend: n frames of the first
sequence, l steps of a path.
"""

import numpy as np


def columns(path_l2: np.ndarray, count: int) -> np.ndarray:
    """The mean j that the path gives each of `count` frames i, float (n,).

    Frames that the path does not meet take a place between their neighbours'.
    """
    i_l, j_l = np.asarray(path_l2).T
    met_n = np.bincount(i_l, minlength=count)[:count]
    sum_n = np.bincount(i_l, weights=j_l, minlength=count)[:count]
    known = np.flatnonzero(met_n)
    return np.interp(np.arange(count), known, sum_n[known] / met_n[known])


def frame_error(path_l2: np.ndarray, truth_n: np.ndarray) -> float:
    """Mean absolute error of j over the frames i, in frames of the second sequence."""
    return float(np.abs(columns(path_l2, len(truth_n)) - truth_n).mean())


def path_error(path_l2: np.ndarray, truth_l2: np.ndarray) -> float:
    """Mean distance of each path's cells to the nearest cell of the other, in frames.

    Zhou and De la Torre 2012, section 5: (d(P, Q) + d(Q, P)) / (l_P + l_Q).
    """
    apart = np.asarray(path_l2)[:, None] - np.asarray(truth_l2)[None]
    apart = np.sqrt(np.square(apart).sum(-1))
    return float((apart.min(1).sum() + apart.min(0).sum()) / sum(apart.shape))


def area(path_l2: np.ndarray, truth_l2: np.ndarray) -> float:
    """The area between two paths with the same ends, as a share of the whole grid.

    Both are polygons j - i = v(u) over the anti-diagonals u = i + j, and the area is
    half of the integral of |v - v'|.
    """
    paths = [np.asarray(p, float) for p in (path_l2, truth_l2)]
    for end in (0, -1):
        if (paths[0][end] != paths[1][end]).any():
            told = " and ".join(str(tuple(p[end].astype(int))) for p in paths)
            raise ValueError(f"paths have ends {told}: an area needs the same ends")
    sides = paths[0][-1] - paths[0][0]
    u = np.arange(paths[0][0].sum(), paths[0][-1].sum() + 1)
    v, w = (np.interp(u, p.sum(1), p[:, 1] - p[:, 0]) for p in paths)
    a, b = np.abs(v - w)[:-1], np.abs(v - w)[1:]
    crossed = (v - w)[:-1] * (v - w)[1:] < 0
    both = np.where(crossed, a + b, 1.0)
    pieces = np.where(crossed, (a * a + b * b) / (2 * both), (a + b) / 2)
    return float(pieces.sum() / 2 / max(sides.prod(), 1.0))
