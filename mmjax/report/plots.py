"""Curves of accuracy over shots, a panel a data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.report import figures

Values = Mapping[str, float]  # of a Result
PROBE, ZERO_SHOT = "#4472a8", "#d98b3a"


def few_shot(
    results: Mapping[str, Values], *, title: str = "", columns: int = 4
) -> Any:
    """A matplotlib Figure: accuracy over shots, the line of zero-shot, its worth.

    Args:
      results: {data set: Result.values of few_shot}; `shots_full`, images a class in
        all of train, may be added to place the last point.

    Raises:
      UserError: there are no results, or one has no shots.
    """
    if not results:
        raise UserError("few-shot curves need one result or more, got none")
    figure, panels = figures.grid(len(results), width=3.1, height=2.8, columns=columns)
    for axes, (name, values) in zip(panels, results.items(), strict=True):
        _curve(axes, name, values)
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(fontsize=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _curve(axes: Any, name: str, values: Values) -> None:
    shots = sorted(
        int(key[5:]) for key in values if key.startswith("shot_") and key[5:].isdigit()
    )
    if not shots:
        raise UserError(f"{name}: no shot_1, shot_2, ...: are these of few_shot?")
    points = {f"shot_{k}": float(k) for k in shots}
    if "shot_full" in values and "shots_full" in values:
        points["shot_full"] = values["shots_full"]
    x = list(points.values())
    y = [100 * values[key] for key in points]
    reach = 100 * np.transpose([figures.reach(values, key) for key in points])
    style = {"fmt": "o-", "ms": 3, "capsize": 2, "color": PROBE}
    axes.errorbar(x, y, reach, **style, label="linear probe")
    if "zero_shot" in values:
        level = values["zero_shot"]
        below, above = figures.reach(values, "zero_shot")
        axes.axhline(100 * level, color=ZERO_SHOT, label="zero-shot")
        band = 100 * (level - below), 100 * (level + above)
        axes.axhspan(*band, color=ZERO_SHOT, alpha=0.2, lw=0)
        sign = {-1.0: "≤ ", 0.0: "", 1.0: "≥ "}[values["zero_shot_worth_bound"]]
        worth = f"zero-shot is worth {sign}{values['zero_shot_worth']:.2g}"
        axes.set_xlabel(f"images a class\n({worth})", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{k:g}" for k in np.round(x)])
    axes.set_title(name, fontsize=10)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
