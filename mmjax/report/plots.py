"""Figures of results beside each other: bars a data set, curves over shots."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.report import figures

Values = Mapping[str, float]  # of a Result
COLOURS = ("#4472a8", "#d98b3a", "#2e8b57", "#c0504d", "#7b5ea7", "#777777")
DPI = 80


def bars(
    results: Mapping[str, Mapping[str, Values]],
    *,
    metric: str = "top1",
    title: str = "",
    chance: Mapping[str, float] | None = None,
) -> Any:
    """A group of bars a data set, a bar a protocol, with 95 % intervals.

    Args:
      results: {data set: {protocol: Result.values}}; a protocol may be missing.
      chance: {data set: accuracy of guessing}, drawn as a dotted line.

    Returns:
      A matplotlib Figure; `figure.savefig(path, dpi=plots.DPI)` writes it.

    Raises:
      UserError: there is nothing to draw.
    """
    protocols = list(dict.fromkeys(p for by in results.values() for p in by))
    if not protocols:
        raise UserError("a bar chart needs one result or more, got none")
    figure, axes = figures.one(title, width=2.2 + 1.5 * len(results), height=3.6)
    width = 0.8 / len(protocols)
    for k, protocol in enumerate(protocols):
        places = [i for i, by in enumerate(results.values()) if protocol in by]
        found = [by[protocol] for by in results.values() if protocol in by]
        x = np.asarray(places) + (k - (len(protocols) - 1) / 2) * width
        height, reach = _percent(found, metric)
        axes.bar(
            x, height, width * 0.92, label=protocol, color=COLOURS[k % len(COLOURS)]
        )
        axes.errorbar(x, height, reach, fmt="none", ecolor=figures.INK, capsize=2, lw=1)
        for at, value, over in zip(x, height, reach[1], strict=True):
            say = {"ha": "center", "va": "bottom", "fontsize": 7}
            axes.text(at, value + over + 0.6, f"{value:.1f}", **say)
    for i, name in enumerate(results):
        if chance and name in chance:
            level = 100 * chance[name]
            axes.plot([i - 0.45, i + 0.45], [level] * 2, ":", color="#777777", lw=1)
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("accuracy, %")
    axes.margins(y=0.12)  # the numbers stand above the intervals
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


def few_shot(
    results: Mapping[str, Values], *, title: str = "", columns: int = 4
) -> Any:
    """A panel a data set: accuracy over shots, the line of zero-shot, its worth.

    Args:
      results: {data set: Result.values of few_shot}; `shots_full`, images a class in
        all of train, may be added to place the last point.

    Returns:
      A matplotlib Figure.

    Raises:
      UserError: no results, or one without shots.
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
    keys, x = [f"shot_{k}" for k in shots], list(map(float, shots))
    if "shot_full" in values and "shots_full" in values:
        keys, x = [*keys, "shot_full"], [*x, values["shots_full"]]
    points = np.asarray([_percent([values], key) for key in keys], object)
    y = np.asarray([p[0][0] for p in points])
    reach = np.asarray([p[1][:, 0] for p in points]).T
    axes.errorbar(
        x, y, reach, fmt="o-", ms=3, capsize=2, color=COLOURS[0], label="linear probe"
    )
    if "zero_shot" in values:
        level, around = _percent([values], "zero_shot")
        axes.axhline(level[0], color=COLOURS[1], label="zero-shot")
        low, high = level[0] - around[0, 0], level[0] + around[1, 0]
        axes.axhspan(low, high, color=COLOURS[1], alpha=0.2, lw=0)
        sign = {-1.0: "≤ ", 0.0: "", 1.0: "≥ "}[values["zero_shot_worth_bound"]]
        worth = f"zero-shot is worth {sign}{values['zero_shot_worth']:.2g}"
        axes.set_xlabel(f"images a class\n({worth})", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{k:g}" for k in np.round(x)])
    axes.set_title(name, fontsize=10)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)


def _percent(found: Sequence[Values], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (k,) and how far their intervals reach below and above (2, k), in %."""
    value = np.asarray([values[metric] for values in found])
    low = np.asarray([values.get(f"{metric}_lo", values[metric]) for values in found])
    high = np.asarray([values.get(f"{metric}_hi", values[metric]) for values in found])
    reach = np.maximum([value - low, high - value], 0)
    return 100 * value, 100 * reach
