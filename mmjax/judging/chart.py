"""The chart of a study's votes beside the paper's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.judging import results
from mmjax.judging.study import QUESTIONS
from mmjax.report import figures

SHORT = {"realism": "Realism", "match": "Accuracy"}  # as the paper calls them


def draw(summary: Mapping[str, Any]) -> Any:
    """A panel a question, as Ramesh et al. 2021, figure 7: a bar each two models.

    A bar's parts are the pairs that gave the first model all votes, all but one, ...;
    the point is its share of majorities with its interval, the dashed line the
    paper's.
    """
    comparisons = summary["questions"]["realism"]["comparisons"]
    wanted, rows = summary["votes_wanted"], len(comparisons)
    figure, grid = figures.grid(2, width=5.2, height=1.9 + 0.55 * rows, columns=2)
    from matplotlib import colormaps

    tones = colormaps["RdBu"](np.linspace(0.85, 0.15, wanted + 1))
    for axes, question in zip(grid, QUESTIONS, strict=True):
        for y, row in enumerate(summary["questions"][question]["comparisons"]):
            total, left = sum(row["histogram"]), 0.0
            for k in range(wanted, -1, -1) if total else ():
                share = row["histogram"][k] / total
                axes.barh(y, share, 0.5, left, color=tones[wanted - k], label=k)
                left += share
            if row["majority"] is not None:
                low, high = row["majority_lo"], row["majority_hi"]
                value = row["majority"]
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                axes.errorbar(
                    value,
                    y,
                    xerr=reach,
                    fmt="o",
                    color=figures.INK,
                    markersize=6,
                    markeredgecolor="white",
                    elinewidth=1.6,
                    capsize=3,
                    zorder=5,
                )
                axes.text(
                    value,
                    y - 0.34,
                    f"{value:.1%}",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=figures.INK,
                    fontweight="bold",
                )
        known = results.REFERENCE[question]
        axes.axvline(known, linestyle="--", color=figures.INK, linewidth=1)
        axes.set_title(SHORT[question], fontsize=10, color=figures.INK, loc="left")
        labels = [
            _plain(f"{row['first']}\nover {row['second']}") for row in comparisons
        ]
        axes.set_yticks(range(rows), labels, fontsize=8)
        axes.set(xlim=(0, 1), ylim=(rows - 0.45, -0.75))
        axes.set_xticks(
            [0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"]
        )
        axes.tick_params(labelsize=8)
        axes.set_xlabel(f"dashed: {known:.1%}, {results.REFERENCE_NAME}", fontsize=7)
    _key(figure, tones, wanted)
    return figure


def _key(figure: Any, tones: Any, wanted: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    parts = [
        Patch(color=tones[wanted - k], label=f"{k}/{wanted}")
        for k in range(wanted, -1, -1)
    ]
    parts.append(Line2D([], [], marker="o", color=figures.INK, label="majority, 95 %"))
    figure.legend(
        handles=parts,
        ncols=len(parts),
        fontsize=7,
        frameon=False,
        loc="outside lower center",
        title="votes of a pair for the first model",
        title_fontsize=7,
    )


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read $...$ as a formula
