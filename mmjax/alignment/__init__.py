"""Alignment in time: sequences of frames, brought onto one another's clock.

Arrays of frames go in, numpy (n,) or (n, d), and paths come out, int (l, 2). Costs are
in squared units of the data, places in frames. Bad input raises
`mmjax.errors.UserError` before anything is compiled.

    dtw, dtw_many        dynamic time warping of a pair, or of many in one call
    ddtw, derivative     the same of slopes (Keogh and Pazzani 2001)
    ctw, gctw            of unlike columns, of two sequences or more (Zhou and De la
                         Torre 2009, 2016)
    search               where a query occurs in a long series
    merge                several sources, unequally sampled and shifted, on one clock
    expected             which cells the paths of soft-DTW enter, and how often
    warp                 two sequences along a path
    dtw_cost, soft_dtw, soft_dtw_divergence
                         of batches (b, n, d), to be differentiated and compiled
                         (Cuturi and Blondel 2017; Blondel et al. 2021)
"""

from mmjax.alignment.canonical import Canonical, ctw, gctw
from mmjax.alignment.clocks import Merged, merge
from mmjax.alignment.grid import Band
from mmjax.alignment.pairs import (
    Alignment,
    Match,
    ddtw,
    derivative,
    dtw,
    dtw_many,
    expected,
    search,
    warp,
)
from mmjax.alignment.paths import cost as dtw_cost
from mmjax.alignment.soft import divergence as soft_dtw_divergence
from mmjax.alignment.soft import value as soft_dtw

__all__ = [
    "Alignment",
    "Band",
    "Canonical",
    "Match",
    "Merged",
    "ctw",
    "ddtw",
    "derivative",
    "dtw",
    "dtw_cost",
    "dtw_many",
    "expected",
    "gctw",
    "merge",
    "search",
    "soft_dtw",
    "soft_dtw_divergence",
    "warp",
]
