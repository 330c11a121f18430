"""What the figures of results share: size, colours, intervals. No pyplot, no state."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax import errors

INK = "#222222"


def one(title: str, *, width: float, height: float) -> tuple[Any, Any]:
    """(figure, axes), in inches."""
    figure, (axes,) = grid(1, width=width, height=height)
    axes.set_title(title, fontsize=9, color=INK)
    return figure, axes


def grid(
    panels: int, *, width: float, height: float, columns: int = 3
) -> tuple[Any, list[Any]]:
    """(figure, its panels' axes), at most `columns` side by side, inches a panel."""
    from matplotlib.figure import Figure  # slow to import

    columns = min(panels, columns)
    rows = -(-panels // columns)
    size = width * columns, height * rows
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for used in axes[:panels]:
        used.spines[["top", "right"]].set_visible(False)
    for spare in axes[panels:]:
        spare.axis("off")
    return figure, axes[:panels]


def save(figure: Any, path: str | pathlib.Path) -> pathlib.Path:
    """Writes a PNG on white paper and its folders; returns its path."""
    path = pathlib.Path(path)
    with errors.writing(path) as part:
        figure.savefig(part, facecolor="white")
    return path


def reach(values: Mapping[str, float], name: str) -> tuple[float, float]:
    """How far an interval reaches below and above its value; 0 without one."""
    value = values[name]
    low, high = (values.get(f"{name}_{end}", value) for end in ("lo", "hi"))
    # a bootstrap interval of a biased statistic need not hold its value
    return max(value - low, 0.0), max(high - value, 0.0)


def line(
    axes: Any,
    xs: Sequence[float],
    names: Sequence[str],
    values: Mapping[str, float],
    label: str,
) -> None:
    """A line through named values, with a band over their intervals."""
    ys = [values[name] for name in names]
    (drawn,) = axes.plot(xs, ys, marker="o", markersize=3, linewidth=1.4, label=label)
    low, high = ([values[f"{n}_{end}"] for n in names] for end in ("lo", "hi"))
    axes.fill_between(xs, low, high, color=drawn.get_color(), alpha=0.12, lw=0)
