"""A suite's results for people: summary.json, summary.md, index.html, figures/*.png."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.report import figures
from mmjax.report import page as pages
from mmjax.suite import published, runner
from mmjax.suite.runner import Outcome

Table = list[list[str]]  # rows of texts, the first one heads


def write(
    out: pathlib.Path,
    name: str,
    model: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    references: Sequence[published.Table] = (),
    models: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes all files but the cells' own; returns what summary.json holds."""
    published.check_models(references, models)
    beside = {table.path: compare(outcomes, table, models) for table in references}
    summary = {
        "suite": name,
        "model": dict(model),
        "cells": [o.entry() for o in outcomes],
        "published": [{"file": path, "rows": rows} for path, rows in beside.items()],
    }
    images = _draw(out, outcomes)
    runner.write(out / "summary.json", summary)
    tables = {"": overview(outcomes)}
    for path, rows in beside.items():
        tables[f"Beside {pathlib.Path(path).name}"] = rows
    title = f"{name} on {model['workdir']}, step {model['step']}"
    notes = [
        f"Model: {model['task']}, weights {model['fingerprint']}. With a number: its "
        "95 % bootstrap interval. cards/ says of each number what was measured."
    ]
    if references:
        notes.append(
            "Published numbers are of the whole test sets; where a suite holds a part "
            "of one, or other images, the two are no more than neighbours."
        )
    runner.write(out / "summary.md", markdown(title, notes, tables, images))
    paths = [out / name for name in images]
    runner.write(out / "index.html", page(title, notes, tables, paths, outcomes))
    return summary


# -- tables --------------------------------------------------------------------
def overview(outcomes: Sequence[Outcome]) -> Table:
    """A row a data set, a column a protocol's shown number."""
    columns = dict.fromkeys((o.protocol, n) for o in outcomes for n in o.shown)
    rows = [["data set", *(f"{p}: {n}" for p, n in columns)]]
    for dataset in dict.fromkeys(o.dataset for o in outcomes):
        row = {o.protocol: o.values for o in outcomes if o.dataset == dataset}
        cells = (spell(row[p], n) if n in row.get(p, ()) else "" for p, n in columns)
        rows.append([dataset, *cells])
    return rows


def spell(values: Mapping[str, float], name: str) -> str:
    """A number with its interval, where it has one."""
    if math.isnan(values[name]):
        return "not defined"
    text = f"{values[name]:.3f}"
    if not math.isnan(values.get(f"{name}_lo", math.nan)):
        text += f" ({values[f'{name}_lo']:.3f} to {values[f'{name}_hi']:.3f})"
    return text


def compare(
    outcomes: Sequence[Outcome], table: published.Table, models: Sequence[str] = ()
) -> Table:
    """Ours first, then published models, over the numbers that both have.

    Raises:
      UserError: there is no such number.
    """
    ours: dict[published.Measure, tuple[Outcome, str]] = {}
    for o in outcomes:
        for number in runner.numbers(o.values):
            measure = published.same(o.published), o.type, number
            # of several protocols of one type the suite's first stands for ours
            if any(measure in r for r in table.results.values()):
                ours.setdefault(measure, (o, number))
    if not ours:
        have = sorted({m[0] for r in table.results.values() for m in r})
        mine = sorted({published.same(o.published) for o in outcomes})
        raise UserError(
            f"{table.path} has none of the numbers of this suite: it is of "
            f"{', '.join(have)}, and the suite of {', '.join(mine)}; "
            "config.datasets.NAME.published gives a data set's name there"
        )
    rows = [["model", *(f"{o.name}: {number}" for o, number in ours.values())]]
    rows.append(["this run", *(spell(o.values, n) for o, n in ours.values())])
    for model in published.choose(table, list(ours), models):
        given = table.results[model]
        cells = [f"{given[m]:.3f}" if m in given else "" for m in ours]
        rows.append([model, *cells])
    below = ["published models below this run"]
    for measure, (o, number) in ours.items():
        given = [r[measure] for r in table.results.values() if measure in r]
        below.append(f"{sum(v < o.values[number] for v in given)} of {len(given)}")
    return [*rows, below]


# -- documents -----------------------------------------------------------------
def markdown(
    title: str, notes: Sequence[str], tables: Mapping[str, Table], images: list[str]
) -> str:
    """The report as markdown."""
    lines = [f"# {title}", "", *notes]
    for head, rows in tables.items():
        lines += ["", *([f"## {head}", ""] if head else [])]
        lines += table(rows)
    lines += ["", *(f"![{pathlib.Path(p).stem}]({p})" for p in images)]
    return "\n".join(lines) + "\n"


def table(rows: Table) -> list[str]:
    """The lines of a table in markdown."""
    return [_bar(rows[0]), "|" + "---|" * len(rows[0]), *map(_bar, rows[1:])]


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def page(
    title: str,
    notes: Sequence[str],
    tables: Mapping[str, Table],
    images: Sequence[pathlib.Path],
    outcomes: Sequence[Outcome],
) -> str:
    """The report as HTML, with every number of every cell."""
    tabled = [pages.table(head or "By data set", rows) for head, rows in tables.items()]
    drawn = []
    for path in images:
        name = path.stem.replace(".", ", ").replace("_", " ")
        alt = f"Chart of {name}; its numbers are in the tables of this page"
        drawn.append(pages.image(path, alt=alt, text=name))
    folded = []
    for o in outcomes:
        rows = [["number", "value (interval)"]]
        rows += [[n, spell(o.values, n)] for n in runner.numbers(o.values)]
        folded.append(pages.details(o.name, pages.table("Values", rows)))
    sections = [
        ("results", "Results", "".join(tabled)),
        ("figures", "Figures", "".join(drawn)),
        ("numbers", "All numbers", "".join(folded)),
    ]
    head = "".join(map(pages.paragraph, notes))
    return pages.document(title, head, sections, by="mmjax eval --suite")


# -- figures -------------------------------------------------------------------
def _draw(out: pathlib.Path, outcomes: Sequence[Outcome]) -> list[str]:
    """Draws the numbers of the table, and what the evaluators' modules can draw.

    That is `figure(values, arrays, title)` of a cell, or `panels({data set: (values,
    arrays)}, title)` of a protocol's cells side by side.
    """
    drawn, together = {"overview": bars(outcomes)}, {}
    for o in outcomes:
        module = evaluators.find(o.type, o.name)
        if hasattr(module, "panels"):
            cells = together.setdefault(o.protocol, (module, {}))[1]
            cells[o.dataset] = o.values, runner.arrays(out, o.key)
        elif hasattr(module, "figure"):
            drawn[o.name] = module.figure(o.values, runner.arrays(out, o.key), o.name)
    for protocol, (module, cells) in together.items():
        drawn[protocol] = module.panels(cells, protocol)
    for name, figure in drawn.items():
        figures.save(figure, out / "figures" / f"{name}.png")
    return [f"figures/{name}.png" for name in drawn]


def bars(outcomes: Sequence[Outcome]) -> Any:
    """A panel a shown number, a group a data set, a bar a protocol, with intervals.

    A dotted line is the chance of top1.
    """
    names = list(dict.fromkeys(n for o in outcomes for n in o.shown))
    figure, grid = figures.grid(len(names), width=3.6, height=2.4)
    for axes, name in zip(grid, names, strict=True):
        having = [o for o in outcomes if name in o.shown]
        datasets = list(dict.fromkeys(o.dataset for o in having))
        protocols = list(dict.fromkeys(o.protocol for o in having))
        wide = 0.8 / len(protocols)
        for k, protocol in enumerate(protocols):
            mine = [o for o in having if o.protocol == protocol]
            xs = [datasets.index(o.dataset) + (k + 0.5) * wide - 0.4 for o in mine]
            ys = [o.values[name] for o in mine]
            ends = [figures.reach(o.values, name) for o in mine]
            axes.bar(xs, ys, wide * 0.92, label=protocol)
            low, high = zip(*ends, strict=True)
            axes.errorbar(xs, ys, (low, high), fmt="none", ecolor=figures.INK, lw=1)
        for o in having if name == "top1" else ():
            classes, place = o.card.get("class_names"), datasets.index(o.dataset)
            if classes:
                ends, level = (place - 0.45, place + 0.45), 1 / classes["count"]
                axes.plot(ends, (level, level), ":", color=figures.INK, linewidth=0.8)
        axes.set_xticks(range(len(datasets)), datasets, fontsize=7)
        alone = len(protocols) == 1
        axes.set_title(f"{protocols[0]}: {name}" if alone else name, fontsize=8)
        if not alone:
            axes.legend(fontsize=6)
    return figure
