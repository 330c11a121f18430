"""What fine-tuning taught and what it cost: zero-shot before, after and between.

Between: the weights `(1 - alpha) * before + alpha * after` of WiSE-FT (Wortsman et al.
2022, equation 1). Differences are over the same examples, and so are their intervals.
Legend: n examples.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import errors, evaluators, schema, tree
from mmjax.data import fields as fields_lib
from mmjax.errors import UserError
from mmjax.finetune.recipe import Plan
from mmjax.metrics import bootstrap
from mmjax.parallel import processes
from mmjax.state import TrainState, Vars
from mmjax.train import evaluate, init_from, setup

PyTree = Any
TARGET = "target"  # name of the set that was trained on
FILE = "forgotten.json"
_RANKS = ("rank", "i2t_rank")  # arrays of evaluators: of the right class or caption


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights before and after, both in the run's own task, and its parts."""

    parts: setup.Parts
    before: Vars
    after: Vars

    def between(self, alpha: float) -> Vars:
        """(1 - alpha) * before + alpha * after; at 0 and 1 exactly one of them."""
        if alpha in (0.0, 1.0):
            return self.after if alpha else self.before

        def mixed(old: jax.Array, new: jax.Array) -> jax.Array:
            floating = jnp.issubdtype(old.dtype, jnp.inexact)
            return (1 - alpha) * old + alpha * new if floating else new

        return jax.tree.map(mixed, self.before, self.after)


def weights(plan: Plan, trained: setup.Parts, state: TrainState) -> Weights:
    """The weights of a fine-tuned run, as its own task has them.

    trained, state: of the last stage.

    Raises:
      UserError: an array of the trained run has another shape than in its start.
    """
    saved = fields_lib.save(trained.fields)
    parts = setup.build(plan.plain, saved=saved)
    shapes = parts.update.abstract(parts.example(), optimizer=False)
    before = init_from.init_from(parts, shapes).vars  # all of it is grafted
    new = state.eval_vars()
    if hasattr(trained.task, "merged"):
        return Weights(parts, before, trained.task.merged(new))
    return Weights(parts, before, _put_back(before, new, plan.back))


def _put_back(before: Vars, new: Vars, back: Mapping[str, str]) -> Vars:
    """`before` with the arrays of `new`, at the paths that `back` gives them."""

    def whole(variables: Vars) -> dict[str, Any]:
        return tree.flatten({"params": variables.params, **variables.extra})

    held = whole(before)
    for path, value in whole(new).items():
        places = [place for place in back if tree.under(path, (place,))]
        if not places:
            continue  # a head of the classes that were trained on
        own = back[places[0]] + path[len(places[0]) :]
        if held[own].shape != value.shape:
            raise UserError(
                f"{own} has shape {held[own].shape} in the run that was fine-tuned, "
                f"and {value.shape} after it: give the data the run's own image size"
            )
        held[own] = value
    learned = tree.unflatten(held)
    params = learned.pop("params")
    return before._replace(params=params, extra=learned)


def measure(
    held: Weights, sets: Mapping[str, Mapping[str, Any]], alphas: Sequence[float]
) -> list[dict[str, Any]]:
    """A row for every set and alpha: top1 and its change from alpha 0, with intervals.

    Args:
      sets: configs of evaluators by name, whose arrays have ranks: zero_shot, and
        retrieval, whose top1 is image to text R@1.

    Raises:
      UserError: an evaluator's config does not fit.
    """
    env, rows = evaluate.env(held.parts), []
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), held.before)
    made = {name: evaluators.build(name, cfg, env) for name, cfg in sets.items()}
    for evaluator in made.values():
        evaluator.check(shapes)
    for alpha in alphas:
        variables = held.between(alpha)
        for name, evaluator in made.items():
            result = evaluator.run(variables)
            rank_n = next(result.arrays[k] for k in _RANKS if k in result.arrays)
            hit_n = (rank_n == 0).astype(np.float64)
            rows.append({"set": name, "alpha": alpha, "hit_n": hit_n})
    before = {row["set"]: row["hit_n"] for row in rows if row["alpha"] == 0.0}
    for row in rows:
        hit_n = row.pop("hit_n")
        change_n = hit_n - before[row["set"]]
        row |= {"examples": len(hit_n)}
        row |= bootstrap.means({"top1": hit_n, "change": change_n})
    return rows


def write(
    workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> str:
    """Writes forgotten.json and forgotten.md in the workdir; returns the table."""
    table = as_table(rows)
    if processes.writer():
        content = {"format": 1, **about, "rows": list(rows)}
        for name, text in ((FILE, json.dumps(content, indent=1)), ("", table)):
            path = workdir / (name or "forgotten.md")
            with errors.writing(path) as part:
                part.write_text(text, encoding="utf-8")
    return table


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a fine-tuned run; UserError where it has none."""
    path = workdir / FILE
    if not path.is_file():
        raise UserError(f"{workdir} holds no {FILE}: run mmjax finetune on it first")
    return schema.read_json(path, fix="run mmjax finetune again")["rows"]


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for every set and alpha, in percent and points."""
    lines = [
        "| set | examples | alpha | top-1, % | change, points |",
        "|---|---|---|---|---|",
    ]
    percent = functools.partial(_percent, digits=1)
    for row in sorted(rows, key=lambda r: (r["set"] != TARGET, r["set"], r["alpha"])):
        change = percent(row, "change") if row["alpha"] else ""
        cells = row["set"], row["examples"], f"{row['alpha']:g}", percent(row, "top1")
        lines.append(f"| {' | '.join(map(str, cells))} | {change} |")
    return "\n".join(lines)


def _percent(row: Mapping[str, float], name: str, *, digits: int) -> str:
    low, value, high = (
        f"{100 * row[key]:.{digits}f}" for key in (f"{name}_lo", name, f"{name}_hi")
    )
    return f"{value} ({low} to {high})"
