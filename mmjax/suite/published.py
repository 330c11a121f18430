"""Tables of published results, to set ours beside: CSV files of two shapes.

Long, a row for a model on a data set (CLIP benchmark's benchmark.csv and
openclip_results.csv): `dataset` or `downstream_dataset`; `model_fullname`, or `model`
and `pretrained`; `task`; a column for each number. Wide, a row for a model
(open_clip's docs/*_results.csv): `name`, `pretrained`, and a column for each data set.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from mmjax import schema
from mmjax.errors import UserError

_LONG = {  # column: (type of evaluator, its number)
    "acc1": ("zero_shot", "top1"),
    "acc5": ("zero_shot", "top5"),
    "mean_per_class_recall": ("zero_shot", "mean_per_class"),
    "image_retrieval_recall@5": ("retrieval", "t2i_r5"),
    "text_retrieval_recall@5": ("retrieval", "i2t_r5"),
}
_TASKS = {"zeroshot_classification": "zero_shot", "zeroshot_retrieval": "retrieval"}
_RETRIEVAL = re.compile(r"(.+) (image|text) retr\. R@(\d+)")
_ABOUT = re.compile(r"params|flops|average|avg", re.IGNORECASE)  # no data set's numbers

Measure = tuple[str, str, str]  # data set by `same`, type of evaluator, number


@dataclasses.dataclass(frozen=True)
class Table:
    """path: of the file; results: model -> measure -> value, a share of 1."""

    path: str
    results: Mapping[str, Mapping[Measure, float]]


def same(dataset: str) -> str:
    """A data set's name without what tables spell differently: vtab/, CIFAR-10."""
    return re.sub(r"[^a-z0-9]", "", dataset.lower().rpartition("/")[2])


def read(path: str | pathlib.Path) -> Table:
    """The numbers of a CSV file that have a counterpart here.

    Raises:
      UserError: no such file; columns of neither shape (names those that are missing);
        a cell that is no share of 1 (names its line and column); no number at all.
    """
    path = pathlib.Path(path).expanduser()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            numbers = list(_cells(path, columns, rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as CSV: {error}") from error
    results: dict[str, dict[Measure, float]] = {}
    for model, measure, value in numbers:
        results.setdefault(model, {})[measure] = value
    if not results:
        raise UserError(f"{path} holds no result of a kind that suites measure")
    return Table(str(path), results)


def _cells(
    path: pathlib.Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]
) -> Iterable[tuple[str, Measure, float]]:
    if {"name", "pretrained"} <= set(columns):
        return _wide(path, columns, rows)
    dataset = next((c for c in ("dataset", "downstream_dataset") if c in columns), "")
    named = "model_fullname" in columns or {"model", "pretrained"} <= set(columns)
    numbers = [c for c in _LONG if c in columns]
    if dataset and named and numbers:
        return _long(path, dataset, numbers, rows)
    listed = ", ".join(columns[:8]) or "of an empty file"
    if len(columns) > 8:
        listed += f" and {len(columns) - 8} more"
    raise UserError(
        f"{path} has the columns {listed}: a table "
        "has either name, pretrained and a column for each data set, or dataset (or "
        "downstream_dataset), model_fullname (or model and pretrained) and some of "
        f"{', '.join(_LONG)}"
    )


def _long(
    path: pathlib.Path,
    dataset: str,
    numbers: Sequence[str],
    rows: Iterable[Mapping[str, str]],
) -> Iterable[tuple[str, Measure, float]]:
    for line, row in enumerate(rows, 2):
        model = row.get("model_fullname") or f"{row['model']} {row['pretrained']}"
        if not row[dataset]:
            raise UserError(f"{path}, line {line}: the column {dataset!r} is empty")
        for column in numbers:
            kind, number = _LONG[column]
            # a linear probe's acc1 is not zero-shot's
            if row[column] and ("task" not in row or _TASKS.get(row["task"]) == kind):
                measure = same(row[dataset]), kind, number
                yield model, measure, _number(path, line, column, row[column])


def _wide(
    path: pathlib.Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]
) -> Iterable[tuple[str, Measure, float]]:
    measures: dict[str, Measure] = {}
    for column in columns:
        retrieval = _RETRIEVAL.fullmatch(column)
        if retrieval:
            way = "t2i" if retrieval[2] == "image" else "i2t"
            name = same(retrieval[1])
            measures[column] = name, "retrieval", f"{way}_r{retrieval[3]}"
        elif column not in ("name", "pretrained") and not _ABOUT.search(column):
            measures[column] = same(column), "zero_shot", "top1"
    for line, row in enumerate(rows, 2):
        for column, measure in measures.items():
            if row[column]:
                value = _number(path, line, column, row[column])
                yield f"{row['name']} {row['pretrained']}", measure, value


def _number(path: pathlib.Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(
            f"{path}, line {line}, column {column!r}: {text!r} is no share of 1"
        )
    return value


def check_models(tables: Sequence[Table], models: Sequence[str]) -> None:
    """Raises UserError for a model that none of the tables has."""
    known = {name for table in tables for name in table.results}
    for name in models:
        if name not in known:
            hint = schema.suggest(name, known)
            raise UserError(f"no table has a model {name!r}{hint}")


def choose(
    table: Table,
    measures: Sequence[Measure],
    models: Sequence[str] = (),
    count: int = 5,
) -> list[str]:
    """Models to show, best first by the mean over `measures`.

    Those of `models` that the table has; or else `count` of those that have every
    measure (or any, where none has all), evenly spaced from the best to the worst.
    """

    def mean(model: str) -> float:
        shares = table.results[model]
        known = [shares[m] for m in measures if m in shares]
        return sum(known) / len(known) if known else -1.0

    named = [model for model in models if model in table.results]
    if named:
        return sorted(named, key=mean, reverse=True)
    having = [m for m in table.results if set(measures) <= set(table.results[m])]
    having = having or [m for m in table.results if mean(m) >= 0]
    ranked = sorted(having, key=mean, reverse=True)
    if len(ranked) <= count:
        return ranked
    return [ranked[i * (len(ranked) - 1) // (count - 1)] for i in range(count)]
