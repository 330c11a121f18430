"""From a config to the parts of a run: data, tokenizer, task, layout, evaluators."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmjax import evaluators, schema, tree
from mmjax import parallel as parallel_lib
from mmjax.data import pipeline, token_cache, tokenizers
from mmjax.data.image import ImageConfig
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.parallel import runtime
from mmjax.state import Ctx, TrainState, Vars
from mmjax.tasks import base
from mmjax.train import checkpoint as checkpoint_lib
from mmjax.train import config as config_lib
from mmjax.train import optim as optim_lib
from mmjax.train.checkpoint import CheckpointConfig

PyTree = Any


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """`config.data`."""

    train: Any  # source spec, or ((spec, weight), ...)
    tokenizer: dict = dataclasses.field(default_factory=lambda: {"kind": "bytes"})
    image: ImageConfig = ImageConfig(size=224)
    threads: int = 2  # decoding threads, where workers is 0
    workers: int = 0  # decoding processes
    prefetch: int = 2  # batches made ahead and placed on the device
    max_broken: float = 0.01  # share of broken records that fails the run


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The top of a config."""

    task: Any
    data: DataConfig
    steps: int
    batch_size: int  # global
    seed: int = 0
    log_every: int = 50
    optim: Any = dataclasses.field(default_factory=dict)
    parallel: Any = dataclasses.field(default_factory=dict)
    checkpoint: CheckpointConfig = CheckpointConfig()
    evals: Any = dataclasses.field(default_factory=dict)
    peak_tflops: float = 0.0  # of one device, for `mfu`; 0: of the device's make
    graft: Any = dataclasses.field(default_factory=dict)  # place: WORKDIR, see `graft`


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything of a run that its config determines, less the weights."""

    config: ConfigDict
    cfg: RunConfig
    layout: parallel_lib.Layout
    tokenizer: tokenizers.Tokenizer | None  # None: batches carry no text
    task: base.Task

    @functools.cached_property
    def source(self) -> Any:
        """The training records. Opened when first asked for: a trained model is
        evaluated and looked at where its training data are not."""
        return _open_train(self.cfg.data)

    @property
    def image_cfg(self) -> ImageConfig:
        return self.cfg.data.image

    @property
    def dropout(self) -> float:
        """BPE-dropout of the training captions."""
        return tokenizers.dropout(self.cfg.data.tokenizer)

    @functools.cached_property
    def predict(self) -> dict[str, Any]:
        """name -> f(vars, numpy batch) -> numpy, compiled and placed."""
        return {name: self.layout.compile_predict(fn) for name, fn in self.raw.items()}

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """name -> f(vars, batch), uncompiled, with an evaluation Ctx bound."""

        def bind(fn: base.Predict) -> Any:
            ctx = Ctx(rng=jax.random.key(self.cfg.seed), step=jnp.zeros((), jnp.int32))
            return lambda variables, batch: fn(variables, batch, ctx)

        return {name: bind(fn) for name, fn in self.task.predict().items()}

    def example(self) -> dict[str, np.ndarray]:
        """Two blank rows, to make shapes from."""
        size = self.image_cfg.size
        rows = {"image": np.zeros((2, size, size, 3), np.uint8)}
        if self.tokenizer is not None:
            rows["tokens"], rows["token_mask"] = self.tokenizer.encode(["", ""])
        return rows


def _open_train(cfg: DataConfig) -> Any:
    """The source, or the mixture of (source, weight) pairs, of `config.data.train`."""
    spec = cfg.train
    if isinstance(spec, (tuple, list)):
        spec = {"kind": "mixture", "parts": spec}
    return open_source(spec)


def build(
    config: ConfigDict, *, tokenizer: tokenizers.Tokenizer | None = None
) -> Parts:
    """Checks a config against itself, the devices and the data. No weights yet."""
    cfg = schema.from_mapping(RunConfig, config, "config")
    for key in ("steps", "batch_size", "log_every"):
        if getattr(cfg, key) < 1:
            raise UserError(f"config.{key} is {getattr(cfg, key)}: it must be positive")
    layout = parallel_lib.Layout(cfg.parallel)
    task = base.build(cfg.task)
    spec = cfg.data.tokenizer
    wordless = "kind" in spec and spec["kind"] == "none"
    if tokenizer is None and not wordless:  # else the data need not be here
        texts = _open_train(cfg.data).texts()
        tokenizer = tokenizers.build(cfg.data.tokenizer, texts=texts)
    facts = {"image_size": cfg.data.image.size}
    if tokenizer is not None:
        facts |= {"vocab_size": tokenizer.vocab_size, "context": tokenizer.context}
    task.check(facts)
    return Parts(config, cfg, layout, tokenizer, task)


def reopen(config: ConfigDict, workdir: pathlib.Path) -> Parts:
    """`build` for a workdir: a tokenizer trained there is not trained again."""
    tokenizer = None
    if (workdir / checkpoint_lib.RUN).exists() and (
        workdir / checkpoint_lib.FOLDER
    ).exists():
        before = checkpoint_lib.read_run(workdir)
        asked = json.loads(config.data.tokenizer.to_json())
        if before["config"]["data"]["tokenizer"] == asked:
            tokenizer = _saved_tokenizer(before)
    return build(config, tokenizer=tokenizer)


def _saved_tokenizer(saved_run: Mapping) -> tokenizers.Tokenizer | None:
    saved = saved_run["tokenizer"]
    return None if saved is None else tokenizers.from_json(saved)


def optimizer(parts: Parts) -> tuple:
    """(abstract variables, transformation, schedule, optimizer config)."""
    key = jax.random.key(parts.cfg.seed)
    shapes = jax.eval_shape(parts.task.init, key, parts.example())
    made = optim_lib.make(
        parts.cfg.optim,
        parts.cfg.steps,
        shapes.params,
        couples_rows=parts.task.couples_rows and not hasattr(parts.task, "embed"),
    )
    return shapes, *made


def fresh(task: base.Task, tx: Any, ema: bool) -> Any:
    """key -> TrainState at step 0."""

    def init(key: jax.Array, batch: PyTree) -> TrainState:
        variables = task.init(jax.random.fold_in(key, 0), batch)
        average = jax.tree.map(lambda p: p + 0, variables.params) if ema else None
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            vars=variables,
            opt_state=tx.init(variables.params),
            ema=average,
            rng=jax.random.fold_in(key, 1),
        )

    return init


def abstract(parts: Parts, init: Any) -> TrainState:
    key = jax.random.key(parts.cfg.seed)
    return parts.layout.abstract(jax.eval_shape(init, key, parts.example()))


def about(parts: Parts) -> dict:
    return {
        "config": json.loads(parts.config.to_json()),
        "tokenizer": parts.tokenizer and parts.tokenizer.to_json(),
        "image": dataclasses.asdict(parts.image_cfg),
        "versions": runtime.describe(),
    }


def check_resume(parts: Parts, old: Mapping) -> None:
    """Refuses to go on under another model, tokenizer, data or optimizer."""
    new = about(parts)
    if old["tokenizer"] != new["tokenizer"]:
        raise UserError(
            "the tokenizer differs from the one this run was started with "
            f"({parts.tokenizer.vocab_size if parts.tokenizer else 0} ids now): use "
            "the old one, or another workdir"
        )
    keys = ("task", "data", "optim", "seed", "batch_size")
    before = tree.flatten({k: old["config"][k] for k in keys})
    after = tree.flatten({k: new["config"][k] for k in keys})
    free = ("data/threads", "data/workers", "data/prefetch", "data/max_broken")
    free += ("task/loss_impl", "task/loss_block")  # forms of the same loss
    for path in sorted(before.keys() | after.keys()):
        # How a task samples has no part in how it is trained.
        if path in free or path.startswith("task/sampling"):
            continue
        if before.get(path) != after.get(path):
            raise UserError(
                f"config.{path.replace('/', '.')} was {before.get(path)} when this run "
                f"was started and is {after.get(path)} now: resume with the old value, "
                "or use another workdir"
            )


def restore(workdir: pathlib.Path, step: int | None = None) -> tuple[Parts, TrainState]:
    """A run's parts and one of its checkpoints, the newest by default."""
    saved_run = checkpoint_lib.read_run(workdir)
    config = config_lib.from_json(saved_run["config"])
    config.parallel = {}  # whatever devices are here
    parts = build(config, tokenizer=_saved_tokenizer(saved_run))
    _, tx, _, optim_cfg = optimizer(parts)
    saved = checkpoint_lib.Checkpointer(workdir, parts.cfg.checkpoint, read_only=True)
    try:
        if saved.latest() is None:
            raise UserError(f"{workdir} holds no checkpoint yet: train it first")
        state, _ = saved.restore(
            abstract(parts, fresh(parts.task, tx, optim_cfg.ema > 0)), step
        )
    finally:
        saved.close()
    return parts, state


def graft(parts: Parts, state: TrainState) -> TrainState:
    """A fresh state with the weights of other runs in it, as `config.graft` asks.

    `config.graft.NAME = WORKDIR` puts all that a run learned (parameters, averaged
    where it keeps an average, and its extra variables) into the frozen variables of
    that name; `config.graft.params = WORKDIR` starts from its parameters.

    Raises:
      UserError: no run is named, the place does not exist, or names or shapes differ.
    """
    for name in parts.cfg.graft:
        workdir, place = parts.cfg.graft[name], f"config.graft.{name}"
        if name != "params" and name not in state.vars.frozen:
            legal = ["params", *state.vars.frozen]
            raise UserError(f"{place}: no such place{schema.suggest(name, legal)}")
        if not workdir:
            raise UserError(
                f"{place} is empty: give the workdir of a trained run, --{place}=DIR"
            )
        got = restore(pathlib.Path(workdir))[1].eval_vars()
        if name == "params":
            params = _placed(state.vars.params, got.params, place, workdir)
            ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
            state = state.replace(vars=state.vars._replace(params=params), ema=ema)
            continue
        new = {"params": got.params, **got.extra}
        new = _placed(state.vars.frozen[name], new, place, workdir)
        frozen = {**state.vars.frozen, name: new}
        state = state.replace(vars=state.vars._replace(frozen=frozen))
    return state


def _placed(old: PyTree, new: PyTree, place: str, workdir: str) -> PyTree:
    """`new` where `old` lies; UserError unless all names and shapes are the same."""
    have, want = tree.flatten(new), tree.flatten(old)
    for path in sorted(have.keys() | want.keys()):
        shapes = [tuple(t[path].shape) if path in t else "absent" for t in (have, want)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{place}: {path} is {shapes[0]} in {workdir} and {shapes[1]} in this "
                "model: give config.task the numbers that run was trained with, or "
                "name another run"
            )
    return jax.tree.map(
        lambda o, n: parallel_lib.spread(np.asarray(n, o.dtype), o.sharding), old, new
    )


def check_cache(parts: Parts, state: TrainState) -> None:
    """Raises UserError where the data are tokens that other weights than these made."""
    made = getattr(parts.source, "stage1", None)
    if made is None:
        return
    found = {
        name: token_cache.fingerprint(parts.layout.fetch(weights))
        for name, weights in state.vars.frozen.items()
    }
    if made["fingerprint"] not in found.values():
        raise UserError(
            f"{parts.source.name} was written by an image tokenizer with fingerprint "
            f"{made['fingerprint']}, and this model holds {found or 'none'}: set "
            "config.graft to the run that wrote it, or run `mmjax data tokenize` again"
        )


def fingerprint(variables: Vars) -> str:
    """16 hex digits of all that a run learned; of the averaged weights, if given."""
    weights = jax.device_get({"params": variables.params, **variables.extra})
    return token_cache.fingerprint(weights)


def open_network(workdir: str) -> evaluators.Network:
    """A trained run as another run's judge, its averaged weights bound."""
    parts, state = restore(pathlib.Path(workdir))
    variables = state.eval_vars()
    return evaluators.Network(
        name=str(workdir),
        task=parts.config.task.name,
        step=int(state.step),
        fingerprint=fingerprint(variables),
        predict={
            name: functools.partial(fn, variables) for name, fn in parts.predict.items()
        },
        tokenizer=parts.tokenizer,
        image_cfg=parts.image_cfg,
        batch_size=parts.cfg.batch_size,
    )


def env(parts: Parts) -> evaluators.Env:
    """The run's side of an evaluation."""
    return evaluators.Env(
        predict=parts.predict,
        raw=parts.raw,
        tokenizer=parts.tokenizer,
        image_cfg=parts.image_cfg,
        batch_size=parts.cfg.batch_size,
        open_source=open_source,
        eval_batches=pipeline.eval_batches,
        open_run=open_network,
    )


def make_evaluators(parts: Parts) -> dict[str, tuple[int, Any]]:
    """name -> (every, evaluator) of `config.evals`."""
    shared, made = env(parts), {}
    for name in sorted(parts.cfg.evals):
        evaluator = evaluators.build(name, parts.cfg.evals[name], shared)
        made[name] = (evaluator.config.every, evaluator)
    return made


def evaluate(
    parts: Parts, variables: Vars, names: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Runs the config's evaluators, or those named, and returns their Results."""
    made = make_evaluators(parts)
    for name in names or ():
        if name not in made:
            raise UserError(f"no evaluator {name!r}{schema.suggest(name, made)}")
    return {
        name: evaluator.run(variables)
        for name, (_, evaluator) in made.items()
        if names is None or name in names
    }
