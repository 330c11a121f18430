"""What the figures of results share: size, colours, intervals. No pyplot, no state."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

INK = "#222222"


def one(title: str, *, width: float, height: float) -> tuple[Any, Any]:
    """(figure, axes), in inches."""
    made, (axes,) = grid(1, width=width, height=height)
    if title:
        axes.set_title(title, fontsize=9, color=INK)
    return made, axes


def grid(
    panels: int, *, width: float, height: float, columns: int = 3
) -> tuple[Any, list[Any]]:
    """(figure, its panels' axes), at most `columns` side by side, inches a panel."""
    from matplotlib import figure as figure_lib  # slow to import

    columns = min(panels, columns)
    rows = -(-panels // columns)
    size = width * columns, height * rows
    made = figure_lib.Figure(figsize=size, layout="constrained", dpi=110)
    axes = list(made.subplots(rows, columns, squeeze=False).flat)
    for used in axes[:panels]:
        used.spines[["top", "right"]].set_visible(False)
    for spare in axes[panels:]:
        spare.axis("off")
    return made, axes[:panels]


def save(figure: Any, path: str | pathlib.Path) -> pathlib.Path:
    """Writes a PNG on white paper; returns its path, its folders made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
    return path


def line(
    axes: Any,
    xs: Sequence[float],
    names: Sequence[str],
    values: Mapping[str, float],
    label: str,
) -> None:
    """A line through named values; a band where their intervals are known."""
    ys = [values[name] for name in names]
    (drawn,) = axes.plot(xs, ys, marker="o", markersize=3, linewidth=1.4, label=label)
    if all(f"{name}_lo" in values for name in names):
        low, high = ([values[f"{n}_{end}"] for n in names] for end in ("lo", "hi"))
        axes.fill_between(xs, low, high, color=drawn.get_color(), alpha=0.12, lw=0)
