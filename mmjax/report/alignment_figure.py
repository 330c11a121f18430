"""A path through time over the costs of its grid, with both sequences at its sides.

Legend: n and m frames, p and q columns, l steps of the path.
"""

from typing import Any

import numpy as np

_LINES = 6  # columns of a sequence that are drawn; more are drawn as an image


def draw(
    x_np: np.ndarray,
    y_mq: np.ndarray,
    path_l2: np.ndarray,
    title: str,
    weight_nm: np.ndarray | None = None,
) -> Any:
    """The figure. Sequences of unlike columns have no costs: the grid is left white.

    weight_nm: shown in place of the costs, such as the expected alignment of soft-DTW.
    """
    from matplotlib.figure import Figure  # slow to import

    x_np, y_mq = (np.atleast_2d(np.asarray(s, float).T).T for s in (x_np, y_mq))
    figure = Figure(figsize=(5, 5), layout="constrained", dpi=110)
    corner, top, side, middle = figure.subplots(
        2, 2, width_ratios=(1, 4), height_ratios=(1, 4)
    ).flat
    corner.axis("off")
    figure.suptitle(title, fontsize=9)
    if weight_nm is None and x_np.shape[1] == y_mq.shape[1]:
        cross_nm = x_np @ y_mq.T
        norms = np.square(x_np).sum(1)[:, None], np.square(y_mq).sum(1)
        weight_nm = -np.sqrt(np.maximum(norms[0] + norms[1] - 2 * cross_nm, 0))
    size = len(x_np), len(y_mq)
    if weight_nm is not None:
        middle.imshow(weight_nm, cmap="gray", aspect="auto", interpolation="nearest")
    middle.plot(path_l2[:, 1], path_l2[:, 0], color="#d62728", linewidth=1.6)
    middle.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5))
    middle.set(xlabel="frame of B", ylabel="")
    _series(top, y_mq, along="x")
    _series(side, x_np, along="y")
    side.set(ylabel="frame of A")
    middle.set_yticklabels([])
    top.set_xticklabels([])
    return figure


def _series(axes: Any, x_np: np.ndarray, *, along: str) -> None:
    """A sequence over its frames, along one axis of the figure."""
    frames = np.arange(len(x_np))
    end = len(x_np) - 0.5
    if x_np.shape[1] > _LINES:
        shown = x_np.T if along == "x" else x_np
        axes.imshow(shown, cmap="viridis", aspect="auto", interpolation="nearest")
    else:
        for column in x_np.T:
            pair = (frames, column) if along == "x" else (column, frames)
            axes.plot(*pair, linewidth=0.9)
    if along == "x":
        axes.set(xlim=(-0.5, end), yticks=[])
    else:
        axes.set(ylim=(end, -0.5), xticks=[])
