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
from mmjax.data import fields as fields_lib
from mmjax.data import pipeline, records
from mmjax.data.fields import Fields
from mmjax.data.records import Source
from mmjax.data.sources import open_source
from mmjax.parallel import runtime
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax.train import checkpoint as checkpoint_lib
from mmjax.train import config as config_lib
from mmjax.train import run_file
from mmjax.train import update as update_lib
from mmjax.train.config import RunConfig

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything of a run that its config determines, less the weights."""

    config: ConfigDict
    cfg: RunConfig
    layout: parallel_lib.Layout
    fields: Fields  # of config.data.fields, open
    task: base.Task

    @functools.cached_property
    def source(self) -> Source:
        """The training records. Opened when first asked for: a trained model is
        evaluated and looked at where its training data are not."""
        return open_source(self.cfg.data.train)

    @functools.cached_property
    def batch_fields(self) -> Fields:
        """The fields of a training batch: those that the task reads."""
        head = records.head(self.source)
        chosen = fields_lib.choose(self.fields, head, self.task.reads)
        fields_lib.check(chosen, self.fields, head)
        return chosen

    @property
    def image_cfg(self) -> Any:
        """The field that holds images, or None."""
        return fields_lib.only(self.fields, "image")

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the field that holds texts, or None."""
        field = fields_lib.only(self.fields, "text")
        return field and field.encoder

    @functools.cached_property
    def predict(self) -> dict[str, Any]:
        """name -> f(variables, numpy batch) -> numpy, compiled and placed."""
        return {name: self.layout.compile_predict(fn) for name, fn in self.raw.items()}

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """name -> f(variables, batch), uncompiled, with an evaluation Ctx bound."""

        ctx = Ctx(rng=jax.random.key(self.cfg.seed), step=jnp.zeros((), jnp.int32))

        def bind(fn: base.Predict) -> Any:
            return lambda variables, batch: fn(variables, batch, ctx)

        return {name: bind(fn) for name, fn in self.task.predict().items()}

    @functools.cached_property
    def update(self) -> update_lib.Update:
        """The optimizer, the state at step 0 and the training step."""
        parts = self.task, self.cfg.optim, self.layout
        return update_lib.build(*parts, steps=self.cfg.steps, batch=self.example())

    def sample(self) -> dict[str, np.ndarray]:
        """The batch that `Task.init` sees: the first `init_rows` rows of the training
        stream where the task asks for them, otherwise `example`."""
        count = getattr(self.task, "init_rows", 0)
        if not count:
            return self.example()
        chosen, head = self.batch_fields, records.head(self.source)
        loader = pipeline.Loader(head, chosen, rows=count, seed=self.cfg.seed)
        batch, _ = loader.batch(0)
        return {key: batch[key] for key in fields_lib.shapes(chosen)}

    def example(self) -> dict[str, np.ndarray]:
        """Two rows, to make shapes from: blank ones, by the config alone."""
        chosen = fields_lib.choose(self.fields, None, self.task.reads)
        return fields_lib.collate(chosen, [fields_lib.blank(chosen)] * 2)


def build(config: ConfigDict, *, saved: Mapping[str, Any] | None = None) -> Parts:
    """Checks a config against itself, the devices and the data. No weights yet.

    Args:
      saved: what of the fields travels with a checkpoint; the data need not be here
        for fields that it has.
    """
    config = config_lib.resolve(config)
    cfg = schema.from_mapping(RunConfig, config, "config")
    layout = parallel_lib.Layout(cfg.parallel)
    task = base.build(cfg.task)
    fields = fields_lib.build(cfg.data.fields)
    fields_lib.choose(fields, None, task.reads)
    source = functools.cache(lambda: open_source(cfg.data.train))
    fields = fields_lib.open_fields(fields, source, saved or {})
    task.check(fields_lib.spec(fields))
    return Parts(config, cfg, layout, fields, task)


def reopen(config: ConfigDict, workdir: pathlib.Path) -> Parts:
    """`build` for a workdir: a tokenizer trained there is not trained again."""
    saved = {}
    if run_file.exists(workdir) and (workdir / checkpoint_lib.FOLDER).exists():
        before = run_file.read(workdir)
        asked = json.loads(config.to_json())["data"]["fields"]
        kept = before["config"]["data"]["fields"]
        saved = {k: v for k, v in before["fields"].items() if kept[k] == asked.get(k)}
    return build(config, saved=saved)


def about(parts: Parts) -> dict:
    """What run.json says of a run: its config, fields and versions."""
    return {
        "config": json.loads(parts.config.to_json()),
        "fields": fields_lib.save(parts.fields),
        "versions": runtime.describe(),
    }
