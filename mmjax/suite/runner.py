"""Runs a suite's cells on a checkpoint, each once, and keeps every result.

A results folder holds `cells/KEY.json` and `KEY.npz` (numbers, card, arrays) and, per
number, `cards/DATASET.PROTOCOL.NUMBER.json`; see mmjax.suite.report for the rest. A
cell's files are whole or absent: a killed suite goes on where it was.
"""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmjax import errors, evaluators, schema
from mmjax.evaluators.common import result_card
from mmjax.inference import load
from mmjax.parallel import processes
from mmjax.suite import cells as cells_lib
from mmjax.train import evaluate, metric_writer


@dataclasses.dataclass(frozen=True)
class Outcome(cells_lib.Place):
    """A cell that has been run."""

    key: str
    values: dict[str, float]
    card: dict[str, Any]
    seconds: float

    @property
    def shown(self) -> tuple[str, ...]:
        """The numbers of its place in the table."""
        asked = tuple(name for name in self.show if name in self.values)
        return asked or numbers(self.values)[:1]

    def entry(self) -> dict[str, Any]:
        """As JSON has it: null for what is not finite."""
        return {**dataclasses.asdict(self), "values": plain(self.values)}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Outcome":
        """The outcome of an `entry`."""
        values = {k: math.nan if v is None else v for k, v in entry["values"].items()}
        return cls(**{**entry, "values": values, "show": tuple(entry["show"])})


def numbers(values: Mapping[str, float]) -> tuple[str, ...]:
    """The names of values that are no end of another's interval."""
    return tuple(
        name
        for name in values
        if not (name.endswith(("_lo", "_hi")) and name[:-3] in values)
    )


def describe(run: load.Run) -> dict[str, Any]:
    """What identifies the model and how it sees its input."""
    return {
        "workdir": str(run.workdir),
        "task": run.config.task.name,
        "step": run.step,
        "fingerprint": run.fingerprint,
        "preprocessing": result_card.preprocessing(run.parts.image_cfg),
        "tokenizer": result_card.tokenizer(run.parts.tokenizer),
    }


def run(
    cells: list[cells_lib.Cell], model: load.Run, out: pathlib.Path
) -> tuple[dict[str, Any], list[Outcome]]:
    """(model, outcomes in the cells' order). Every process of a run calls this.

    Whatever is wrong with a cell's config is said before the first one runs.

    Raises:
      UserError: see mmjax.suite.cells and the evaluators.
    """
    about = describe(model)
    identity = {k: v for k, v in about.items() if k != "workdir"}
    whole = evaluate.env(model.parts)
    sources: dict[str, Any] = {}

    def opened(spec: Any) -> Any:
        """Opens each spec once: protocols share their data."""
        name = spec if isinstance(spec, str) else json.dumps(spec, sort_keys=True)
        if name not in sources:
            sources[name] = whole.open_source(spec)
        return sources[name]

    env = dataclasses.replace(whole, open_source=opened)
    keys = [cell.key(identity, opened) for cell in cells]
    # what the writer sees, for all processes: they must run the same cells
    finished = processes.of_writer([_file(out, key).is_file() for key in keys])
    variables = model.state.eval_vars()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    waiting = {}
    for cell, key, is_finished in zip(cells, keys, finished, strict=True):
        if not is_finished and key not in waiting:
            waiting[key] = evaluators.build(cell.name, cell.cfg, env, cell.where)
            waiting[key].check(shapes)
    done = len(cells) - len(waiting)
    progress = metric_writer.Progress(
        len(cells), done, 1, label="suite", active=processes.writer()
    )
    if done:
        progress.note(f"{done} of {len(cells)} are in {out} already")
    outcomes = []
    for cell, key in zip(cells, keys, strict=True):
        if key in waiting:
            outcome = _run(cell, key, waiting.pop(key), variables, out)
            done += 1
            progress.update()
            shown = {f"{cell.name} {n}": outcome.values[n] for n in outcome.shown}
            progress.say(done, shown)
        elif processes.writer():
            outcome = read(out, cell, key)
        else:
            continue
        outcomes.append(outcome)
        if processes.writer():
            write_cards(out, outcome, about)
    progress.close()
    return about, outcomes


def _run(
    cell: cells_lib.Cell, key: str, evaluator: Any, variables: Any, out: pathlib.Path
) -> Outcome:
    begin = time.perf_counter()
    result = evaluator.run(variables)
    outcome = Outcome(
        **cell.place(),
        key=key,
        values=dict(result.values),
        card=dict(result.card),
        seconds=round(time.perf_counter() - begin, 2),
    )
    if processes.writer():
        path = _file(out, key)
        with errors.writing(path.with_suffix(".npz")) as part:
            np.savez_compressed(part, **result.arrays)
        write(path, outcome.entry())  # last: where it is, the cell is done
    return outcome


def read(out: pathlib.Path, cell: cells_lib.Cell, key: str) -> Outcome:
    """A finished cell's outcome, under the cell's names of today.

    Raises:
      UserError: its file is damaged.
    """
    saved = schema.read_json(_file(out, key), fix="delete it, run again")
    return Outcome.of(saved | cell.place())


def arrays(out: pathlib.Path, key: str) -> dict[str, np.ndarray]:
    """What a finished cell measured, example by example."""
    with np.load(_file(out, key).with_suffix(".npz"), allow_pickle=False) as file:
        return dict(file)


def write_cards(out: pathlib.Path, outcome: Outcome, model: Mapping[str, Any]) -> None:
    """One file a number: its value and interval, of what data, model and protocol."""
    values = plain(outcome.values)
    for name in numbers(values):
        entry = {"dataset": outcome.dataset, "protocol": outcome.protocol}
        entry |= {"number": name, "value": values[name]}
        if f"{name}_lo" in values:
            entry |= {"low": values[f"{name}_lo"], "high": values[f"{name}_hi"]}
        entry |= {"model": dict(model), "key": outcome.key, **outcome.card}
        write(out / "cards" / f"{outcome.name}.{name}.json", entry)


def plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them: null for what is not finite."""
    return {k: float(v) if math.isfinite(v) else None for k, v in values.items()}


def write(path: pathlib.Path, content: Any) -> None:
    """JSON or text, whole or not at all, whenever the process is killed."""
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    with errors.writing(path) as part:
        part.write_text(text, encoding="utf-8")


def _file(out: pathlib.Path, key: str) -> pathlib.Path:
    return out / "cells" / f"{key}.json"
