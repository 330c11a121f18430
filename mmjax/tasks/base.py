"""The protocol every model family meets, and how a config names one.

`config.task.name = "clip"` is `mmjax.tasks.clip.Task`; the other keys of
`config.task` are that dataclass' fields. There is no registry.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

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

    A task whose rows couple may split its loss in two, so that `config.optim.accum`
    slices of a batch can be embedded one after the other and still meet each other:

        embed(vars, batch, ctx) -> (embeddings, new extra): arrays of floats with the
            batch's rows first, each row a function of its own row (batch statistics
            are then those of a slice);
        loss_of(vars, embeddings, batch, ctx) -> (loss, metrics): of all rows, from
            what `embed` gave. `extra` of `vars` is the old one.

    `loss` is then the second of the first.
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


def pixels(batch: Batch) -> jax.Array:
    """The batch's images, uint8 (b, h, w, 3), as float32 in [0, 1]."""
    return batch["image"].astype(jnp.float32) / 255.0


def cosine(step: jax.Array, start: float, end: float, steps: int) -> jax.Array:
    """From `start` at step 0 to `end` at `steps` along half a cosine, then constant."""
    if steps == 0:
        return jnp.asarray(end, jnp.float32)
    done = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))


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
