"""The report's charts under their titles, from what the runs and judges wrote.

Each is a panel of HTML, or '' where its numbers are missing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.report import charts, elements, numbers, page
from mmjax.report.charts import Series
from mmjax.report.curves import finite
from mmjax_demo import words

Curve = Mapping[str, list]  # k, and per attribute the shares right, with _lo and _hi

_ENDS = ("_lo", "_hi")
_TITLES = {"all": "All at once", "relation": "Place of two", "count": "Number"}


def usage(counts: Sequence[float]) -> str:
    """How often each code of the codebook occurs, by rank."""
    total, size = sum(counts), len(counts)
    if not total:
        return ""
    shares = [count / total for count in counts if count > 0]
    perplexity = math.exp(-sum(share * math.log(share) for share in shares))
    said = (
        f"{len(shares):,} of {size:,} codes occur in {total:,.0f} tokens of held-out "
        f"pictures; as many bits as {perplexity:,.0f} codes used equally often."
    )
    edges = list(range(size + 1))
    chart = charts.steps(
        edges,
        [Series("codes", edges[1:], sorted(counts, reverse=True))],
        alt=f"Rank plot of code usage: {said}",
        x_label="codes, most used first",
        y_label="times used (log scale)",
        log_y=True,
    )
    return elements.panel("How often each code is used", chart, said)


def attributes(curves: Mapping[str, Curve]) -> list[str]:
    """Names of what the curves of all splits are about, in their order."""
    names = dict.fromkeys(name for curve in curves.values() for name in curve)
    return [n for n in names if n != "k" and not n.endswith(_ENDS)]


def best_of(name: str, curves: Mapping[str, Curve]) -> str:
    """The share right in one attribute over K, a line for each split."""
    series, said = [], []
    for split, curve in curves.items():
        label, shares = words.SPLITS.get(split, split), curve.get(name) or []
        low, high = (curve.get(name + end) for end in _ENDS)
        k = curve["k"] if shares else []
        series.append(Series(label, k, shares, *((low, high) if k else ())))
        if shares:
            spelled = ", ".join(numbers.spell(value, "share") for value in shares)
            said.append(f"{label}: {spelled}")
    pools = sorted({k for s in series for k in s.x})
    title = _title(name)
    chart = charts.lines(
        series,
        alt=f"Line chart, {title}, over K of {', '.join(map(str, pools))}. "
        + "; ".join(said),
        x_label="K: candidates that CLIP chooses from",
        y_label="share right",
        x_ticks=pools,
        share=True,
    )
    return elements.panel(title, chart)


def curve_table(split: str, curve: Curve, names: Sequence[str]) -> str:
    """The numbers of a split's curves, with their intervals."""
    rows = []
    for name in names:
        columns = [curve.get(name), *(curve.get(name + end) for end in _ENDS)]
        cells = [
            _cell(*(column[n] if column else None for column in columns))
            for n in range(len(curve["k"]))
        ]
        rows.append((_title(name), cells))
    head = ["right", *(f"K = {k}" for k in curve["k"])]
    return page.matrix(f"Shares right, {words.SPLITS.get(split, split)}", head, rows)


def histogram(scores: Mapping[str, Any], k: int) -> str:
    """CLIP's scores of first candidates, and of the best of k."""
    if not all(scores.get(key) for key in ("edges", "first", "best")):
        return ""
    edges, middle = scores["edges"], scores["edges"][1:]
    series = [
        Series("first candidates", middle, scores["first"]),
        Series(f"best of {k}", middle, scores["best"]),
    ]
    chart = charts.steps(
        edges,
        series,
        alt="Histogram of CLIP scores: of the first candidates, and of the best of "
        f"{k} for each caption.",
        x_label="cosine of picture and caption",
        y_label="captions",
    )
    text = (
        "How well pictures fit their captions in CLIP's own opinion, by which the "
        "choice is made. The oracle is the judge that had no part in it."
    )
    key = charts.legend([s.label for s in series]) if chart else ""
    return elements.panel("CLIP scores, before and after", chart + key, text)


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def _cell(value: Any, low: Any, high: Any) -> str:
    if value is None:
        return "–"
    text = elements.data(value, "share")
    if finite(low) and finite(high):
        ends = (elements.data(end, "share", unit=False) for end in (low, high))
        text += f"<small>{' to '.join(ends)}</small>"
    return text
