"""What the figures of results share: size, colours, intervals. No pyplot, no state."""

from collections.abc import Mapping, Sequence
from typing import Any

INK = "#222222"


def one(title: str, *, width: float, height: float) -> tuple[Any, Any]:
    """(figure, axes), in inches."""
    from matplotlib import figure as figure_lib

    made = figure_lib.Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = made.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=9, color=INK)
    return made, axes


def grid(panels: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    """(figure, axes below one another), inches a panel."""
    from matplotlib import figure as figure_lib

    size = width, height * panels
    made = figure_lib.Figure(figsize=size, layout="constrained", dpi=110)
    axes = list(made.subplots(panels, 1, squeeze=False)[:, 0])
    for one_axes in axes:
        one_axes.spines[["top", "right"]].set_visible(False)
    return made, axes


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
