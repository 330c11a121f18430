"""The protocol every model family meets, and how a config names one.

`config.task.name = "clip"` is `mmjax.tasks.clip.Task`; the other keys of
`config.task` are that dataclass' fields. There is no registry.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import image_tokenizer
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

    A generator's `predict` offers

        sample: {condition fields (tokens and tokens_mask, or label, ...), seed uint32
            (p,), candidate int32 (p, k)} -> {image uint8 (p, k, s, s, 3), any other
            arrays (p, k, ...)}. A candidate follows from its row's condition, seed and
            candidate number alone.
        complete: the same, of rows that also have image uint8 (p, s, s, 3) and known
            bool (p, s, s), the pixels that are given.

    Its `sampling` is a dataclass of the options that both draw with. What "complete"
    compiles for may depend on which pixels are known: `completion(rows)`, on the host,
    then returns the rows as "complete" takes them, or raises UserError.
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


class Stage1:
    """What tasks that train an image tokenizer share. Subclasses have the fields.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes.
    """

    couples_rows = False
    tokenizer: dict

    @functools.cached_property
    def model(self) -> nn.Module:
        """The Linen module, a pure function of the fields."""
        return image_tokenizer.build(self.tokenizer)

    def _require(self, kind: type[nn.Module], name: str) -> None:
        """Raises ValueError for a tokenizer that another task trains."""
        if not isinstance(self.model, kind):
            raise ValueError(
                f"tokenizer.kind is {self.tokenizer['kind']!r}: this task trains "
                f"{name!r}; name the task of that kind in config.task.name"
            )

    def check(self, data: Mapping[str, int]) -> None:
        """See Task."""
        have, want = data["image_size"], self.model.image_size
        if have != want:
            raise UserError(
                f"the data have image_size {have}, the tokenizer {want}: set "
                f"config.task.tokenizer.image_size to {have}, or change the data"
            )

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See Task."""
        variables = self.model.init(key, pixels(batch))
        return Vars(
            params=variables["params"],
            extra={k: v for k, v in variables.items() if k != "params"},
        )

    def _apply(self, variables: Vars, method: str, *args: jax.Array) -> Any:
        return self.model.apply(
            {"params": variables.params, **variables.extra}, *args, method=method
        )


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


def sampling_options(task: Task) -> dict[str, Any]:
    """The options that a task samples with, by name; none for one that does not."""
    return dataclasses.asdict(task.sampling) if hasattr(task, "sampling") else {}


def with_sampling(task: Task, options: Mapping[str, Any]) -> Task:
    """The task with some of its `sampling` options changed.

    Raises:
      UserError: the task has no such option (names the nearest), or no options at all.
    """
    if not options:
        return task
    own = sampling_options(task)
    if not own:
        raise UserError(f"sampling.{min(options)}: this task has no sampling options")
    sampling = schema.from_mapping(type(task.sampling), own | options, "sampling")
    return dataclasses.replace(task, sampling=sampling)
