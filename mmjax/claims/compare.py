"""Runs side by side: how their configs differ, and their numbers over seeds.

Runs whose configs are the same but for the seed are one group.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from mmjax import schema
from mmjax.claims import measure, plan
from mmjax.errors import UserError
from mmjax.report import curves, elements
from mmjax.report import page as pages
from mmjax.suite.report import Table
from mmjax.train import metric_writer, run_file

_DEEP = 4  # folders below one that holds runs
_SHOWN = 24  # curves of a page
_PLACES = ("checkpoint.folder",)  # say where a run lies, not what it is


@dataclasses.dataclass(frozen=True)
class Group:
    """One config. runs: seed -> workdir. config: without the seed."""

    label: str
    config: Mapping[str, Any]
    runs: Mapping[int, pathlib.Path]


def groups(places: Sequence[pathlib.Path]) -> list[Group]:
    """The groups of runs, and of folders that hold runs, in the order given.

    Raises:
      UserError: a place is no run and holds none; two runs of one config and seed.
    """
    found: dict[str, tuple[Any, dict[int, pathlib.Path]]] = {}
    for workdir in _workdirs(places):
        config = dict(run_file.read(workdir)["config"])
        seed = config.pop("seed")
        key = json.dumps(_what(config), sort_keys=True)
        runs = found.setdefault(key, (config, {}))[1]
        if seed in runs:
            raise UserError(
                f"{workdir} and {runs[seed]} have the same config and seed {seed}: "
                "give one of them"
            )
        runs[seed] = workdir
    made = []
    for config, runs in found.values():
        first = min(runs.items())[1]
        name = first.name
        if len(runs) > 1 and name.endswith(tail := f"-{min(runs)}"):
            name = name.removesuffix(tail)
        taken = any(group.label == name for group in made)
        made.append(Group(str(first) if taken else name, config, runs))
    return made


def _what(config: Mapping[str, Any]) -> dict[str, str]:
    return {k: v for k, v in plan.flat(config) if k not in _PLACES}


def _workdirs(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    listed = []
    for place in places:
        depths = ("/".join(["*"] * n + [run_file.NAME]) for n in range(_DEEP))
        below = [sorted(place.glob(depth)) for depth in depths]
        inside = [path.parent for paths in below for path in paths]
        if not inside:
            run_file.read(place)  # says what is wrong with it
        listed += inside[:1] if run_file.exists(place) else inside
    return list(dict.fromkeys(listed))


# -- numbers -----------------------------------------------------------------------
Numbers = dict[str, dict[int, dict[str, measure.Number]]]


def numbers(listed: Sequence[Group]) -> Numbers:
    """Last numbers: group -> seed -> metric, of evaluators and the training loss."""
    found: Numbers = {}
    for group in listed:
        found[group.label] = {}
        for seed, workdir in group.runs.items():
            values = measure.numbers(workdir, None)
            _, loss = curves.column(metric_writer.read(workdir), "loss")
            values |= {"loss": measure.Number(loss[-1])} if loss else {}
            found[group.label][seed] = values
    return found


def metrics(found: Numbers, asked: Sequence[str]) -> list[str]:
    """The metrics to show: those asked for, or all that every group has.

    Raises:
      UserError: no run has one that was asked for, or there is none at all.
    """
    held = [set().union(*by_seed.values()) for by_seed in found.values()]
    known = set().union(*held)
    for name in asked:
        if name not in known:
            raise UserError(
                f"no run has a metric {name!r}{schema.suggest(name, known)}"
            )
    shared = sorted(set.intersection(*held))
    if not (asked or shared):
        raise UserError("these runs share no metric: train them a step further")
    return list(asked) or shared


def columns(found: Numbers, metric: str) -> dict[str, dict[int, measure.Number]]:
    """A metric of every group that has it, by seeds."""
    made = {
        label: {s: values[metric] for s, values in by_seed.items() if metric in values}
        for label, by_seed in found.items()
    }
    return {label: column for label, column in made.items() if column}


# -- tables ------------------------------------------------------------------------
def configs(listed: Sequence[Group]) -> Table:
    """A row a config key that differs, a column a group."""
    rows = [["config", *(group.label for group in listed)]]
    for key, texts in plan.differences(*(group.config for group in listed)).items():
        if key not in _PLACES:
            rows.append([key, *texts])
    return rows


def table(found: Numbers, shown: Sequence[str]) -> Table:
    """A row a metric, a column a group: means with 95 % intervals over seeds and
    examples; of one seed the number with the interval over its examples."""
    seeds = (f"{label} ({len(held)})" for label, held in found.items())
    rows = [["metric (seeds)", *seeds]]
    for metric in shown:
        cells = columns(found, metric)
        texts = (_spell(cells[label]) if label in cells else "" for label in found)
        rows.append([metric, *texts])
    return rows


def _spell(column: Mapping[int, measure.Number]) -> str:
    if len(column) > 1:
        return str(measure.of_arm(column))
    ((_, number),) = column.items()
    ends = 1.96 * number.error
    low, high = (measure.spell(number.value + way * ends) for way in (-1, 1))
    text = measure.spell(number.value)
    return f"{text} ({low} to {high}, examples alone)" if number.error else text


def tests(found: Numbers, shown: Sequence[str]) -> Table:
    """Every group less the first, paired by seeds: t tests, without a correction for
    how many there are.

    The interval is over seeds and examples. p is of the seeds' differences alone.
    """
    first, *others = found
    head = ["metric", "compared", "difference (95 %)", "p, paired t", "common seeds"]
    rows = [head]
    for metric in shown:
        cells = columns(found, metric)
        for label in others if first in cells else ():
            both = set(cells[first]) & set(cells.get(label, {}))
            if not both:
                continue
            name, count = f"{label} less {first}", str(len(both))
            if len(both) < 2:
                rows.append([metric, name, "two common seeds are needed", "", count])
                continue
            change = measure.difference(cells[label], cells[first])
            deltas = [cells[label][s].value - cells[first][s].value for s in both]
            same = max(deltas) - min(deltas) == 0.0
            p = math.nan if same else float(stats.ttest_1samp(deltas, 0.0).pvalue)
            rows.append([metric, name, str(change), "" if same else f"{p:.3g}", count])
    return rows


# -- the page ----------------------------------------------------------------------
def page(listed: Sequence[Group], found: Numbers, shown: Sequence[str]) -> str:
    """All tables and curves as one page of HTML."""
    many = len(listed) > 1
    said = f"{sum(len(g.runs) for g in listed)} runs of "
    said += f"{len(listed)} configs. Runs " if many else "one config. Runs "
    said += "that differ in the seed alone are one column, and one line with the range "
    said += "of its seeds."
    read = {g.label: list(map(metric_writer.read, g.runs.values())) for g in listed}
    drawn = []
    for name in dict.fromkeys(("loss", *shown)):
        lines = [(label, _over_seeds(name, runs)) for label, runs in read.items()]
        drawn.append(curves.metric(name, lines))
    drawn = [panel for panel in drawn if panel][:_SHOWN]
    sections = [
        ("curves", "Curves", elements.grid(drawn) or elements.absent("two rows.")),
        ("numbers", "Numbers", pages.table("Means over seeds", table(found, shown))),
    ]
    if many:
        tested = pages.table("Less the first, by seeds", tests(found, shown))
        differ = pages.table("Keys that differ", configs(listed))
        sections.insert(0, ("configs", "How the configs differ", differ))
        sections.append(("tests", "Paired differences", tested))
    head = pages.paragraph(said, "lead")
    return pages.document("Runs compared", head, sections, by="mmjax compare")


def _over_seeds(name: str, runs: Sequence[curves.Rows]) -> curves.Rows:
    """Rows of the mean of a metric, between its least and its most, at common steps."""
    if len(runs) == 1:
        return runs[0]
    columns = [dict(zip(*curves.column(rows, name), strict=True)) for rows in runs]
    made = []
    for step in sorted(set.intersection(*map(set, columns))):
        values = [column[step] for column in columns]
        ends = {f"{name}_lo": min(values), f"{name}_hi": max(values)}
        made.append({"step": step, name: sum(values) / len(values), **ends})
    return made
