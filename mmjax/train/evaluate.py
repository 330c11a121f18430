"""Evaluators of a run, and other runs as their judges."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmjax import evaluators, schema
from mmjax.data import fields as fields_lib
from mmjax.data import pipeline
from mmjax.data.records import Source
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.state import Vars
from mmjax.tasks import base
from mmjax.train.restore import fingerprint, restore
from mmjax.train.setup import Parts


def open_network(workdir: str) -> evaluators.Network:
    """A trained run as another run's judge, its averaged weights bound."""
    parts, state = restore(pathlib.Path(workdir))
    variables = state.eval_vars()
    return evaluators.Network(
        name=str(workdir),
        task=parts.config.task.name,
        step=int(state.step),
        fingerprint=fingerprint(parts, variables),
        predict={
            name: functools.partial(fn, variables) for name, fn in parts.predict.items()
        },
        tokenizer=parts.tokenizer,
        image_cfg=parts.image_cfg,
        batch_size=parts.cfg.batch_size,
    )


def env(parts: Parts) -> evaluators.Env:
    """The run's side of an evaluation."""

    def eval_batches(
        source: Source, names: Sequence[str], *, batch_size: int
    ) -> Iterator[pipeline.Batch]:
        chosen = fields_lib.choose(parts.fields, source, names)
        return pipeline.eval_batches(source, chosen, batch_size=batch_size)

    return evaluators.Env(
        predict=parts.predict,
        raw=parts.raw,
        tokenizer=parts.tokenizer,
        image_cfg=parts.image_cfg,
        reads=parts.task.reads,
        batch_size=parts.cfg.batch_size,
        open_source=open_source,
        eval_batches=eval_batches,
        open_run=open_network,
        devices=parts.layout.rows,
        fields=parts.fields,
        sampling=base.sampling_options(parts.task),
        with_sampling=lambda options: env(
            dataclasses.replace(parts, task=base.with_sampling(parts.task, options))
        ),
    )


def off(evaluator: Mapping[str, Any]) -> bool:
    """Whether a section of `config.evals` is passed over: its data are not named."""
    return "source" in evaluator and evaluator["source"] == ""


def require_data(name: str, evaluator: Mapping[str, Any]) -> None:
    """UserError where it is off."""
    if off(evaluator):
        raise UserError(
            f"config.evals.{name} has no data: give --config.evals.{name}.source=SPEC"
        )


def make_evaluators(parts: Parts) -> dict[str, tuple[int, Any]]:
    """name -> (every, evaluator) of `config.evals` whose data are named."""
    shared, made = env(parts), {}
    for name in sorted(parts.cfg.evals):
        if off(parts.cfg.evals[name]):
            continue
        evaluator = evaluators.build(name, parts.cfg.evals[name], shared)
        made[name] = (evaluator.config.every, evaluator)
    return made


def evaluate(
    parts: Parts, variables: Vars, names: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Runs the config's evaluators, or those named, and returns their Results."""
    made = make_evaluators(parts)
    for name in names or ():
        if name in parts.cfg.evals:
            require_data(name, parts.cfg.evals[name])
        if name not in made:
            raise UserError(f"no evaluator {name!r}{schema.suggest(name, made)}")
    return {
        name: evaluator.run(variables)
        for name, (_, evaluator) in made.items()
        if names is None or name in names
    }
