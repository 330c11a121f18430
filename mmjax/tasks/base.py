"""The protocol every model family meets, and how a config names one.

`config.task.name = "clip"` is `mmjax.tasks.clip.Task`; the other keys of
`config.task` are that dataclass' fields. There is no registry.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from mmjax import schema
from mmjax.errors import UserError
from mmjax.state import Ctx, Vars

PyTree = Any
Batch = Mapping[str, jax.Array]
Metrics = Mapping[str, jax.Array]
Predict = Callable[[Vars, Batch, Ctx], PyTree]


class Task(Protocol):
    """A model family: a frozen dataclass whose fields are its config.

    A task that needs two optimizers may add `grads(vars, batch, ctx)`, returning
    (gradients, new extra, metrics with `loss`), which replaces the gradient of `loss`.
    """

    couples_rows: bool  # the loss of a row depends on the others

    def check(self, data: Mapping[str, int]) -> None:
        """Raises UserError where the data do not fit the model.

        `data` has `image_size` and, where there is text, `vocab_size` and `context`.
        """

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """Fresh variables for batches shaped like this one."""

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """Scalar mean over global rows, (new extra, scalar metrics)."""

    def predict(self) -> Mapping[str, Predict]:
        """What evaluators, samplers and the command line may call, by name."""


def build(config: Mapping) -> Task:
    """The task of `config.task`; unknown names and keys raise UserError."""
    fields = {key: config[key] for key in config if key != "name"}
    name = config["name"] if "name" in config else ""
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"config.task.name is {name!r}: give a module of mmjax.tasks")
    try:
        module = importlib.import_module(f"mmjax.tasks.{name}")
    except ModuleNotFoundError as e:
        if e.name != f"mmjax.tasks.{name}":
            raise
        raise UserError(
            f"config.task.name is {name!r}, but there is no mmjax/tasks/{name}.py"
        ) from e
    return schema.from_mapping(module.Task, fields, "config.task")
