"""Fine-tuned runs side by side: what each learned, and what each forgot."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.report import figures

Rows = Sequence[Mapping[str, Any]]


def draw(runs: Mapping[str, Rows], path: pathlib.Path, *, target: str) -> pathlib.Path:
    """Left, the change of every set; right, the target against the others.

    Args:
      runs: rows of mmjax.finetune.forgotten by the runs' names.
      target: name of the set that was trained on. Without it there is no right side.
    """
    sets = list(dict.fromkeys(row["set"] for rows in runs.values() for row in rows))
    others = [name for name in sets if name != target]
    both = target in sets and bool(others)
    figure, panels = figures.grid(1 + both, width=4.2, height=3.4)
    _changes(panels[0], runs, sets)
    if both:
        _plane(panels[1], runs, target, others)
    panels[0].legend(fontsize=7, frameon=False)
    return figures.save(figure, path)


def _changes(axes: Any, runs: Mapping[str, Rows], sets: Sequence[str]) -> None:
    for number, (name, rows) in enumerate(runs.items()):
        last = {row["set"]: row for row in rows if row["alpha"] == 1.0}
        own = [s for s in sets if s in last]
        y = np.array([sets.index(s) for s in own]) + 0.8 * (number + 0.5) / len(runs)
        x = [100 * last[s]["change"] for s in own]
        reach = [figures.reach(last[s], "change") for s in own]
        reach = 100 * np.transpose(reach).reshape(2, -1)
        axes.errorbar(x, y, xerr=reach, fmt="o", ms=4, capsize=2, label=name)
    axes.axvline(0, color=figures.INK, lw=0.8)
    axes.set_yticks(np.arange(len(sets)) + 0.4, sets, fontsize=8)
    axes.set_ylim(len(sets), -0.2)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("change of zero-shot top-1, points", fontsize=8)


def _plane(
    axes: Any, runs: Mapping[str, Rows], target: str, others: Sequence[str]
) -> None:
    for name, rows in runs.items():
        alphas = sorted({row["alpha"] for row in rows})
        top1 = {(row["set"], row["alpha"]): 100 * row["top1"] for row in rows}
        known = [s for s in others if (s, 0.0) in top1]
        x = [top1[target, alpha] for alpha in alphas]
        y = [np.mean([top1[s, alpha] for s in known]) for alpha in alphas]
        axes.plot(x, y, "o-", ms=4, lw=1, label=name)
        for at in zip(x, y, alphas, strict=True) if len(alphas) > 2 else ():
            axes.annotate(f"{at[2]:g}", at[:2], fontsize=6, va="bottom")
    axes.tick_params(labelsize=7)
    axes.set_xlabel(f"top-1 on {target}, %", fontsize=8)
    axes.set_ylabel("mean top-1 on the other sets, %", fontsize=8)
