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

from mmjax import parallel as parallel_lib
from mmjax import schema
from mmjax.data import tokenizers
from mmjax.data.image import ImageConfig
from mmjax.data.sources import open_source
from mmjax.data.tokenizers import base as base_lib
from mmjax.errors import UserError
from mmjax.parallel import runtime
from mmjax.state import Ctx, TrainState
from mmjax.tasks import base
from mmjax.train import checkpoint as checkpoint_lib
from mmjax.train import optim as optim_lib
from mmjax.train.config import DataConfig, RunConfig

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything of a run that its config determines, less the weights."""

    config: ConfigDict
    cfg: RunConfig
    layout: parallel_lib.Layout
    tokenizer: base_lib.Tokenizer | None  # None: batches carry no text
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
        """name -> f(variables, numpy batch) -> numpy, compiled and placed."""
        return {name: self.layout.compile_predict(fn) for name, fn in self.raw.items()}

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """name -> f(variables, batch), uncompiled, with an evaluation Ctx bound."""

        def bind(fn: base.Predict) -> Any:
            ctx = Ctx(rng=jax.random.key(self.cfg.seed), step=jnp.zeros((), jnp.int32))
            return lambda variables, batch: fn(variables, batch, ctx)

        return {name: bind(fn) for name, fn in self.task.predict().items()}

    def example(self) -> dict[str, np.ndarray]:
        """Two blank rows, to make shapes from."""
        size = self.image_cfg.size
        rows = {"image": np.zeros((2, size, size, 3), np.uint8)}
        if self.tokenizer is not None:
            rows["tokens"], rows["tokens_mask"] = self.tokenizer.encode(["", ""])
        return rows


def _open_train(cfg: DataConfig) -> Any:
    """The source, or the mixture of (source, weight) pairs, of `config.data.train`."""
    spec = cfg.train
    if isinstance(spec, (tuple, list)):
        spec = {"kind": "mixture", "parts": spec}
    return open_source(spec)


def build(config: ConfigDict, *, tokenizer: base_lib.Tokenizer | None = None) -> Parts:
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
            tokenizer = saved_tokenizer(before)
    return build(config, tokenizer=tokenizer)


def saved_tokenizer(saved_run: Mapping) -> base_lib.Tokenizer | None:
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
