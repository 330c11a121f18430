"""From a trained run, data and a recipe to the configs that the loop trains.

Tokenizer, activation and preprocessing are those of the run: its `config.task` and
fields are the new run's, and its text fields read its own tokenizer.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mmjax import schema
from mmjax.data import records
from mmjax.data.sources import open_source, parse
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.train import config as config_lib

PROBE = "probe"  # folder of the first stage, below the workdir
_OF_LAST = ("steps", "optim", "graft", "evals")  # overrides that the probe ignores


@dataclasses.dataclass(frozen=True)
class Probe:
    """`config.probe`: the stage that trains a new head on frozen features."""

    steps: int
    optim: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The top of a recipe's config.

    steps, batch_size, optim: see mmjax.train.config.RunConfig.
    task: keys of `config.task` that it changes. named: those that it changes where
      captions are made of class names.
    image: keys that it changes of the field that holds images.
    around: a task that adapts the run's: its name, and its fields but `base`.
    probe: a linear classifier on the image tower is trained in place of the run's task,
      at first its head alone.
    context: ids before every class name whose embeddings are learned, by the task that
      `around` names; it is given the sentences.
    shots: train on so many images of every class; 0 is all.
    alphas: the weights that are judged, between the run's at 0 and the new ones at 1.
    """

    steps: int
    batch_size: int
    optim: dict[str, Any]
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    named: dict[str, Any] = dataclasses.field(default_factory=dict)
    image: dict[str, Any] = dataclasses.field(default_factory=dict)
    around: dict[str, Any] = dataclasses.field(default_factory=dict)
    probe: Probe | None = None
    context: int = 0
    shots: int = 0
    alphas: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        schema.at_least(1, self, "steps", "batch_size")
        schema.at_least(0, self, "shots", "context")
        rising = all(a < b for a, b in zip(self.alphas, self.alphas[1:], strict=False))
        if not rising or not {0.0, 1.0} <= set(self.alphas):
            raise ValueError(f"alphas {self.alphas}: give 0, 1 and what lies between")
        if self.around and self.probe:
            raise ValueError("around and probe: give one of them")
        if self.context and not self.around:
            raise ValueError("context is for a task that around names: give it")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained, and how its weights lie in the run's own task.

    stages: folder and config of each call of the loop, in order.
    plain: the config with the run's own task, which judges the weights.
    back: paths of the trained variables -> those in the run's own task.
    """

    stages: tuple[tuple[pathlib.Path, ConfigDict], ...]
    plain: ConfigDict
    back: dict[str, str]


def read(spec: str) -> Recipe:
    """The recipe of `recipes.py:NAME`, of NAME alone, or of a file of one's own."""
    name = spec if ":" in spec or spec.endswith(".py") else f"recipes:{spec}"
    config = config_lib.load(name, kind=Recipe)
    return schema.from_mapping(Recipe, config.to_dict(), "config")


def plan(
    run: load.Run,
    recipe: Recipe,
    data: str,
    workdir: pathlib.Path,
    *,
    templates: Sequence[str],
    test: str = "",
    overrides: Sequence[str] = (),
) -> Plan:
    """The configs of a fine-tuning.

    Args:
      run: where it starts.
      data: the training source. Without captions, its class names in `templates` are.
      test: a source of the same classes that is judged zero-shot, or by the head.
      overrides: `--config.KEY=VALUE` of the run that is trained.

    Raises:
      UserError: the data have neither captions nor class names, the classes of `test`
        are others, a key that does not exist, or a task that no recipe of this kind
        fits.
    """
    if hasattr(run.task, "merged"):
        raise UserError(
            f"{run.workdir} holds an adapter of another run's weights: start from its "
            "merged weights, in the folder `merged` below it"
        )
    if recipe.shots:  # unless the source says so itself
        data = {"shots": recipe.shots, **_mapping(data)}
    source = open_source(data)
    names = tuple(source.class_names)
    if test:
        _same_classes(names, tuple(open_source(test).class_names))
    task, back = {**run.config.task.to_dict(), **recipe.task}, {}
    if recipe.probe or recipe.context:
        if len(names) < 2:
            raise UserError(
                f"--data {data}: this recipe needs class names, and it has "
                f"{len(names)}: give labelled images, such as folder:PLACE?label=parent"
            )
    elif names and not records.next_good(source, 0)[0]["text"]:
        task |= recipe.named
        data = {**_mapping(data), "template": "|".join(templates)}
    graft = _everything(run)
    back = {path: path for path in graft if path not in run.state.vars.frozen}
    plain = _config(run, recipe, data, task)
    if "tokens" in plain.data.fields:  # for zero-shot with what is trained
        plain.data.templates = tuple(dict.fromkeys(templates))
    own, path = task, str(run.workdir)
    if recipe.around:
        own, back = {**recipe.around, "base": task}, {}
        if recipe.context:
            own |= _sentences(run.tokenizer, names, recipe.context)
        graft = {**graft, "base": f"{path}#params"}
        del graft["params"]
    if recipe.probe:
        own, back = _classifier(run, len(names))
        graft = {place: f"{path}#{part}" for place, part in back.items()}
    config = plain.copy_and_resolve_references()
    config.task, config.graft = ConfigDict(schema.tuples(own)), ConfigDict(graft)
    if test:
        config.evals.test = _judged(recipe, test, templates)
    stages = _stages(config, recipe, workdir, back, overrides)
    final = stages[-1][1]
    plain.data, plain.batch_size = final.data, final.batch_size
    if not recipe.probe:  # as it was changed on the command line
        plain.task = final.task.base if recipe.around else final.task
    plain.graft = ConfigDict(_everything(run))
    return Plan(stages, plain, back)


def _stages(
    config: ConfigDict,
    recipe: Recipe,
    workdir: pathlib.Path,
    back: Mapping[str, str],
    overrides: Sequence[str],
) -> tuple[tuple[pathlib.Path, ConfigDict], ...]:
    """Folders and configs: of the run alone, or of its head's before it."""
    if not recipe.probe:
        return ((workdir, _override(config, overrides, last=True)),)
    first = config.copy_and_resolve_references()
    first.steps, first.optim = recipe.probe.steps, ConfigDict(recipe.probe.optim)
    first.optim.freeze = tuple(
        f"^{place.removeprefix('params/')}/" for place in back if "params" in place
    )
    learned = {place.partition("/")[0] for place in back}
    config.graft = ConfigDict(dict.fromkeys(learned, str(workdir / PROBE)))
    return (
        (workdir / PROBE, _override(first, overrides, last=False)),
        (workdir, _override(config, overrides, last=True)),
    )


def _override(config: ConfigDict, given: Sequence[str], *, last: bool) -> ConfigDict:
    """A stage with the overrides that are about it."""
    plain = [text.lstrip("-").removeprefix("config.") for text in given]
    return config_lib.override(
        config, [text for text in plain if last or not text.startswith(_OF_LAST)]
    )


def _mapping(spec: Any) -> dict[str, Any]:
    kind, path, options = parse(spec)
    return {"kind": kind, "path": path, **options}


def _same_classes(names: Sequence[str], test: Sequence[str]) -> None:
    """UserError unless both sources number the same classes in the same way."""
    if not names or names == test:
        return
    if len(names) != len(test):
        differ = f"{len(names)} classes in --data and {len(test)} in --test"
    else:
        k = next(k for k in range(len(names)) if names[k] != test[k])
        differ = f"label {k} is {names[k]!r} in --data and {test[k]!r} in --test"
    raise UserError(f"{differ}: give two parts of one data set")


def _sentences(tokenizer: Any, names: Sequence[str], count: int) -> dict[str, Any]:
    """`sentences` and `learned`: that many ids before every class name, used in none.

    Raises:
      UserError: the run reads no texts, has no ids to spare, or a name is too long.
    """
    if tokenizer is None:
        raise UserError("the run has no tokenizer: start from one that reads texts")
    tokens_cl, mask_cl = tokenizer.encode([f"{name}." for name in names])
    used = set(np.unique(tokens_cl[mask_cl]).tolist())
    spare = [i for i in range(tokenizer.sot - 1, 0, -1) if i not in used][:count]
    longest = int(mask_cl.sum(1).max())
    if len(spare) < count or longest + count > tokenizer.context:
        raise UserError(
            f"config.context is {count}: the longest class name has {longest} tokens "
            f"of the {tokenizer.context} that are read, and {len(spare)} ids are "
            "spare; use fewer"
        )
    rows = (row[own].tolist() for row, own in zip(tokens_cl, mask_cl, strict=True))
    return {"sentences": [[s, *spare, *rest] for s, *rest in rows], "learned": spare}


def _everything(run: load.Run) -> dict[str, str]:
    """`config.graft` that takes all variables of a run."""
    variables = run.state.vars
    names = ("params", *variables.extra, *variables.frozen)
    return dict.fromkeys(names, str(run.workdir))


def _classifier(run: load.Run, classes: int) -> tuple[dict, dict[str, str]]:
    """`config.task` of a classifier on the run's image tower, and `Plan.back`."""
    if not hasattr(run.task, "classifier"):
        raise UserError(
            f"{run.workdir} is a run of task {run.config.task.name}, which has no "
            "image tower to put a linear head on: use another recipe"
        )
    task, (place, part) = run.task.classifier(classes)
    back = {f"params/{place}": f"params/{part}"}
    extra = [name for name, held in run.state.vars.extra.items() if part in held]
    return task, back | {f"{name}/{place}": f"{name}/{part}" for name in extra}


def _judged(recipe: Recipe, test: str, templates: Sequence[str]) -> ConfigDict:
    """`config.evals.test`, once, at the end."""
    shared = {"source": test, "every": 1 << 30}
    if recipe.probe or recipe.context:
        return ConfigDict({**shared, "type": "mean_loss", "partial": "mask"})
    return ConfigDict({**shared, "type": "zero_shot", "templates": tuple(templates)})


def _config(
    run: load.Run, recipe: Recipe, data: Any, task: Mapping[str, Any]
) -> ConfigDict:
    """A config of the run's own task on the data, less its evaluators and graft."""
    fields = run.config.data.fields.to_dict()
    fields.setdefault("label", {"kind": "label"})
    for options in fields.values():
        if options["kind"] == "text" and options.get("tokenizer") != "bytes":
            options.update(path=str(run.workdir), vocab_size=None, min_count=None)
        if options["kind"] == "image":
            options.update(recipe.image)
    values = {
        "seed": 0,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "log_every": max(1, min(50, recipe.steps // 10)),
        "task": dict(task),
        "data": {"train": data, "fields": fields},
        "optim": recipe.optim,
        "parallel": {},
        "checkpoint": {"every": max(1, recipe.steps // 4), "keep": 1},
        "evals": {},
        "graft": {},
    }
    return ConfigDict(schema.tuples(json.loads(json.dumps(values))))


def others(run: load.Run, suite: str, limit: int | None) -> dict[str, dict[str, Any]]:
    """The evaluators of other sets: a suite's that judge zero-shot, or the run's own.

    Args:
      suite: a suite's config, such as `configs/suites.py:bundle`; "": the run's own.
      limit: examples of each, at most.

    Raises:
      UserError: there are none.
    """
    from mmjax.suite import cells as cells_lib
    from mmjax.train import evaluate

    kinds = ("zero_shot", "retrieval")
    if suite:
        listed = cells_lib.cells(config_lib.load(suite, kind=cells_lib.Suite))
        named = {c.dataset: dict(c.cfg) for c in listed if c.protocol in kinds}
    else:
        own = run.config.evals.items()
        named = {name: cfg.to_dict() for name, cfg in own if not evaluate.off(cfg)}
        named = {name: cfg for name, cfg in named.items() if cfg["type"] in kinds}
    for judged in named.values():
        judged["every"] = 0
        if limit is not None:
            judged["limit"] = min(limit, judged.get("limit") or limit)
    if suite and not named:
        raise UserError(f"--others {suite} has no protocol zero_shot or retrieval")
    return named
