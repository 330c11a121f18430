"""A run's curves as panels of HTML, from the rows of its metrics.jsonl.

Each is '' where its numbers are missing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.report import charts, elements
from mmjax.report.charts import Series

Rows = Sequence[Mapping[str, Any]]


def finite(value: Any) -> bool:
    """Whether a value of a JSON file is a number that can be drawn."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def loss(title: str, rows: Rows, meaning: str) -> str:
    """A run's training loss over its steps, beside that of its evaluators."""
    step, value = column(rows, "loss")
    if not step:
        return ""
    held = sorted({key for row in rows for key in row if key.endswith("/loss")})
    series = [Series("training", step, value)]
    series += [Series(name.split("/")[0], *column(rows, name)) for name in held]
    said = f"from {value[0]:.4g} at step {step[0]:,} "
    said += f"to {value[-1]:.4g} at step {step[-1]:,}"
    chart = charts.lines(
        series,
        alt=f"Line chart: the loss of {title} goes {said}.",
        x_label="training step",
        y_label="loss",
    )
    key = charts.legend([s.label for s in series]) if held else ""
    return elements.panel(f"{title}: loss", chart + key, f"{meaning} Here {said}.")


def throughput(title: str, rows: Rows) -> str:
    """A run's images per second over its steps."""
    step, rate = column(rows, "rows_per_second")
    if not step:
        return ""
    middle = sorted(rate)[len(rate) // 2]
    said = f"Median {middle:,.0f} images a second."
    chart = charts.lines(
        [Series("images/s", step, rate)],
        alt=f"Line chart of the throughput of {title}. {said}",
        x_label="training step",
        y_label="images per second",
        from_zero=True,
    )
    said += " The first point includes compilation."
    return elements.panel(f"{title}: throughput", chart, said)


def column(rows: Rows, name: str) -> tuple[list, list]:
    """Steps and values of a metric, of the rows that have it as a finite number."""
    kept = [(row["step"], row[name]) for row in rows if finite(row.get(name))]
    return [step for step, _ in kept], [value for _, value in kept]


def metric(name: str, rows: Sequence[tuple[str, Rows]]) -> str:
    """A number over the steps of one run or of several; rows: (label, rows) of each."""
    series = []
    for label, own in rows:
        step, value = column(own, name)
        ends = [column(own, f"{name}_{end}") for end in ("lo", "hi")]
        banded = [values for steps, values in ends if steps == step]
        bands = banded if len(banded) == 2 and len(rows) <= 3 else [None, None]
        series.append(Series(label, step, value, *bands))
    series = [one for one in series if one.x]
    if not any(len(one.x) > 1 for one in series):
        return ""
    last = "; ".join(f"{one.label} {one.y[-1]:.4g}" for one in series)
    chart = charts.lines(
        series,
        alt=f"Line chart: {name} over training steps, at last {last}.",
        x_label="training step",
        y_label=name.rpartition("/")[2],
    )
    key = charts.legend([one.label for one in series]) if len(series) > 1 else ""
    return elements.panel(name, chart + key, f"At last {last}.")


def names(rows: Rows) -> list[str]:
    """Metrics of evaluators that were told at two steps or more."""
    seen: dict[str, int] = {}
    for row in rows:
        for name in row:
            ends = name.endswith(("_lo", "_hi"))
            if "/" in name and not ends and not name.startswith("time/"):
                seen[name] = seen.get(name, 0) + 1
    return [name for name, count in seen.items() if count > 1]
