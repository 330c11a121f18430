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
from mmjax.train import config as config_lib
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


def choose(
    saved: Any,
    workdir: pathlib.Path,
    *,
    names: Sequence[str] | None = None,
    source: str | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Any:
    """A run's config with only the evaluators asked for, and changes to them.

    Args:
      saved: the config of the run in `workdir`.
      names: under `config.evals`; all whose data are named by default.
      source: other data for all of them.
      overrides: `--config.evals.NAME.KEY=VALUE`.
      options: other values of keys of all of them.

    Raises:
      UserError: no such evaluator, one without data, or the saved config names code
        outside mmjax that neither overrides nor options name as well.
    """
    options = options or {}
    if "type" not in options:
        _refuse_foreign(saved, workdir, names or list(saved.evals), overrides)
    chosen = config_lib.override(saved, overrides)
    without = [name for name, e in chosen.evals.items() if off(e)]
    names = names or [name for name in chosen.evals if name not in without]
    if not names:
        data = f" with data: use --evals {without[0]} --source SPEC" if without else ""
        raise UserError(f"the config of {workdir} has no evaluators{data}")
    for name in names:
        if name not in chosen.evals:
            hint = schema.suggest(name, chosen.evals)
            raise UserError(f"no evaluator {name!r} in {workdir}{hint}")
    with chosen.unlocked():
        chosen.evals = {name: chosen.evals[name] for name in names}
        for name in names:
            chosen.evals[name].update(options)
            if source:
                chosen.evals[name].source = source
            require_data(name, chosen.evals[name])
    return chosen


def _refuse_foreign(
    saved: Any, workdir: pathlib.Path, names: Sequence[str], overrides: Sequence[str]
) -> None:
    """UserError where a run.json, and not the user, names code outside mmjax."""
    for name, evaluator in saved.evals.items():
        kind = str(evaluator["type"]) if "type" in evaluator else ""
        place = f"--config.evals.{name}."
        key = f"{place}type"
        used = name in names or any(x.startswith(place) for x in overrides)
        if used and "." in kind and f"{key}={kind}" not in overrides:
            raise UserError(
                f"the config of {workdir} runs {kind}, code outside mmjax, as "
                f"evaluator {name!r}: give {key}={kind} if you trust it"
            )
