"""The protocol every model family meets, and how a config names one.

`config.task.name = "clip"` is `mmjax.tasks.clip.Task`; the other keys of
`config.task` are that dataclass' fields. There is no registry.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn import attention
from mmjax.state import Ctx, Vars

PyTree = Any
Batch = Mapping[str, jax.Array]
Metrics = Mapping[str, jax.Array]
Spec = Mapping[str, Mapping[str, Any]]
Predict = Callable[[Vars, Batch, Ctx], PyTree]
_SIZES = ("width", "depth", "heads", "embed_dim", "image_size", "vocab_size", "context")


class Task(Protocol):
    """A model family: a frozen dataclass whose fields are its config.

    A task whose gradients are not those of one loss may add

        grads(vars, batch, ctx) -> (gradients, new extra, metrics with `loss`)

    which training calls in place of `loss`; gradients lie as the parameters do and are
    means over rows. So learn two players, whose optimizers are
    `config.optim.groups`, and statistics such as contrastive divergence. A group that
    pauses ignores its gradients: they may be zeros, by `jax.lax.cond` on `ctx.step`.

    `params` may be empty: closed forms and EM keep what they learn in `extra`.

    `extra` is one value for all devices. Floats are averaged over them; integers,
    booleans and keys must be equal. Means over rows are right as they are. What has
    rows of its own, such as the chains of persistent contrastive divergence, is whole
    on every device, and each moves its share:

        chains_nd = ctx.mine(vars.extra["chains"])
        keys_n = ctx.example_keys(len(chains_nd))
        new = {"chains": ctx.gather(gibbs(vars.params, keys_n, chains_nd))}

    Their number splits over the devices. With `config.optim.accum` slices, `extra` goes
    from slice to slice: chains move once a slice.

    Names that `training_only` lists, such as "params/discriminator", are of variables
    that no other run reads: a part of a run that is grafted leaves them out, where the
    other has no such variables, and they have no share in a run's fingerprint.

    Parameters that have bounds are put back inside after every update by

        bounded(params) -> params, as they are within their bounds

    so that what is saved and exported is what was computed with.

    A task whose `extra` or loss has statistics of all rows of a step, while a row's
    network needs its own alone, may split `loss` in three, so that these statistics
    are the same with any number of `config.optim.accum` slices:

        prepare(vars, slices, ctx) -> (vars, slices): before the first slice; arrays
            have an axis of slices, then the rows of each. What is added to them may
            have the first axis alone.
        observe(vars, batch, ctx) -> (loss, (means, rows), metrics): of a slice, where
            `ctx.stride` is their number. `means` are over its rows; `rows` are arrays
            with its rows first. Both are those of this device.
        settle(vars, means, rows, ctx) -> (new extra, metrics): once, from the means of
            all slices' `means`, and from their `rows` in the order of the batch.

    `loss` is the three in one, for a batch that is one slice.

    A task whose rows couple may split its loss in two, so that `config.optim.accum`
    slices of a batch can be embedded one after the other and still meet each other:

        embed(vars, batch, ctx) -> (embeddings, new extra): arrays of floats with the
            batch's rows first, each row a function of its own row (batch statistics
            are then those of a slice);
        loss_of(vars, embeddings, batch, ctx) -> (loss, metrics): of all rows, from
            what `embed` gave. `extra` of `vars` is the old one.

    `loss` is then the second of the first. With `settle` as well, every slice starts
    from the step's `extra`, and `settle` has the mean of what `embed` made of it.

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
    # Names of the fields that its batches have; `a|b` is either, `a?` is taken where
    # the records have it. See mmjax.data.fields.
    reads: tuple[str, ...]
    # Optional: `init` gets the first so many rows of the training stream, real ones,
    # for biases and whitening that depend on the data; without it, blank rows.
    # init_rows: int

    def check(self, spec: Spec) -> None:
        """Raises UserError where the data do not fit the model.

        Args:
          spec: of every field by name its `kind`, `shape` and `dtype` of a row, and
            what its kind adds: `vocab_size` of text, `class_names` of labels.
        """

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """Fresh variables for batches shaped like this one."""

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """Scalar mean over global rows, (new extra, scalar metrics)."""

    def predict(self) -> Mapping[str, Predict]:
        """What evaluators, samplers and the command line may call, by name."""


def check_image(spec: Spec, size: int, key: str) -> None:
    """Raises UserError unless the field `image` has the side that the model takes.

    Args:
      size: the model's, in pixels.
      key: the key of config.task that says so.
    """
    have = spec["image"]["shape"][0] if "image" in spec else size
    if have != size:
        raise UserError(
            f"config.data.fields.image.size is {have}, and the model takes images of "
            f"{size}: set config.task.{key} to {have}, or the field's size to {size}"
        )


def check_text(spec: Spec, *, vocab_size: int, context: int, exact: bool) -> None:
    """Raises UserError unless the field `tokens` fits a model of text.

    Args:
      vocab_size: ids that the model knows; the field may have fewer.
      context: positions that it reads; 0 for any number.
      exact: whether all positions must be filled, if only by padding.
    """
    ids, (length,) = spec["tokens"].get("vocab_size", 0), spec["tokens"]["shape"]
    if ids > vocab_size:
        raise UserError(
            f"config.data.fields.tokens has {ids} ids (vocab_size), and the model "
            f"{vocab_size}: set config.task.vocab_size to {ids}, or the field's"
        )
    if context and (length != context if exact else length > context):
        raise UserError(
            f"config.data.fields.tokens has a context of {length}, and the model "
            f"{context}: set config.task.context to {length}, or the field's context"
        )


def check_tower(spec: Spec, tower: Any) -> None:
    """Raises UserError unless the field `tokens` fits a text tower."""
    context = getattr(tower, "context", 0)  # a bag of words has no positions
    check_text(spec, vocab_size=tower.vocab_size, context=context, exact=False)


def check_classes(spec: Spec, classes: int) -> None:
    """Raises UserError where the field `label` has more classes than the model."""
    names = len(spec["label"].get("class_names", ()))
    if names > classes:
        raise UserError(
            f"config.task.classes is {classes}, and the data have {names} classes: set "
            f"it to {names}"
        )


def eight_bit(x_bhw3: jax.Array) -> jax.Array:
    """Images in [0, 1], clipped, as uint8."""
    return jnp.round(255.0 * jnp.clip(x_bhw3, 0.0, 1.0)).astype(jnp.uint8)


def pixels(batch: Batch) -> jax.Array:
    """The batch's images, uint8 (b, h, w, 3), as float32 in [0, 1]."""
    return batch["image"].astype(jnp.float32) / 255.0


class Normalised:
    """What tasks share that train one Linen module on normalised images.

    Subclasses have the fields `mean` and `std`, of pixels in [0, 1], and `model`, whose
    parameter `logit_scale` has the bounds `log_scale_bounds`.
    """

    def _pixels(self, batch: Batch) -> jax.Array:
        """uint8 (b, h, w, 3) to float32, normalised."""
        return (pixels(batch) - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def _apply(self, variables: Vars, *args: jax.Array, **how: Any) -> Any:
        return self.model.apply(
            {"params": variables.params, **variables.extra}, *args, **how
        )

    def _call(self, method: str, read: Callable, finish: Callable = lambda x: x) -> Any:
        """The predict function that gives `finish` of a method of what `read` reads."""

        def call(variables: Vars, batch: Batch, ctx: Ctx) -> PyTree:
            return finish(self._apply(variables, *read(batch), method=method))

        return call

    def bounded(self, params: PyTree) -> PyTree:
        """`logit_scale` within the model's bounds."""
        low, high = self.model.log_scale_bounds
        return {**params, "logit_scale": jnp.clip(params["logit_scale"], low, high)}

    def prepare(self, variables: Vars, slices: PyTree, ctx: Ctx) -> tuple[Vars, PyTree]:
        """See Task."""
        return variables, slices

    def observe(self, variables: Vars, batch: Batch, ctx: Ctx) -> tuple:
        """See Task: running averages of batch norm are linear in what they average."""
        loss, (extra, metrics) = self.loss(variables, batch, ctx)
        return loss, (extra, {}), metrics

    def settle(
        self, variables: Vars, means: PyTree, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Task."""
        return means, {}

    def _train(self, variables: Vars, ctx: Ctx, *args: jax.Array) -> tuple[Any, PyTree]:
        """The module's output and the new `extra`."""
        mutable = list(variables.extra) if ctx.train else []
        out, extra = self._apply(
            variables, *args, train=ctx.train, axis=ctx.axis, mutable=mutable
        )
        return out, extra if ctx.train else variables.extra


def split(variables: Mapping[str, PyTree]) -> Vars:
    """The variables of a Linen module: parameters, and all else."""
    extra = dict(variables)
    return Vars(params=extra.pop("params"), extra=extra)


def positive(task: Any, *names: str) -> None:
    """ValueError for an attribute that is not above 0; for `__post_init__`."""
    for name in names:
        if getattr(task, name) <= 0:
            raise ValueError(f"{name} is {getattr(task, name)}: use more than 0")


def embedded_loss(
    task: Any, variables: Vars, batch: Batch, ctx: Ctx
) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
    """The method `loss` of a task that splits it into `embed` and `loss_of`."""
    embedded, extra = task.embed(variables, batch, ctx)
    loss, metrics = task.loss_of(variables, embedded, batch, ctx)
    return loss, (extra, metrics)


def evaluated(task: Any) -> Predict:
    """The predict function "loss" that gives the training loss beside its metrics."""

    def loss(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        value, (_, metrics) = task.loss(variables, batch, ctx)
        return {"loss": value, **metrics}

    return loss


def attention_maps(call: Callable[..., tuple[Any, Mapping[str, PyTree]]]) -> PyTree:
    """Weights (b, h, q, t) of every layer that attends to tokens, by module.

    Layers that are scanned are stacked before the rows. Attention that pools (a
    ResNet's, SigLIP's) keeps none.

    Args:
      call: A module's `apply`, that takes `mutable` alone.

    Raises:
      UserError: no layer attends.
    """
    maps = call(mutable=[attention.MAPS])[1]
    if not maps:
        raise UserError("no layer of this model attends to tokens: it has no maps")
    return maps[attention.MAPS]


def cosine(step: jax.Array, start: float, end: float, steps: int) -> jax.Array:
    """From `start` at step 0 to `end` at `steps` along half a cosine, then constant."""
    if steps == 0:
        return jnp.asarray(end, jnp.float32)
    done = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def build(config: Mapping, where: str = "config.task") -> Task:
    """The task of `config.task`; unknown names and keys raise UserError.

    where: the key of the config that `config` is.
    """
    fields = {key: config[key] for key in config if key != "name"}
    name = config["name"] if "name" in config else ""
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(f"{where}.name is {name!r}: give a module of mmjax.tasks")
    try:
        module = importlib.import_module(f"mmjax.tasks.{name}")
    except ModuleNotFoundError as e:
        if e.name != f"mmjax.tasks.{name}":
            raise
        raise UserError(
            f"{where}.name is {name!r}, but there is no mmjax/tasks/{name}.py"
        ) from e
    task = schema.from_mapping(module.Task, fields, where)
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        if value != field.default:  # 0 there is a preset's, or the data's
            _check_sizes(field.name, value, f"{where}.{field.name}")
    return task


def _check_sizes(name: str, value: Any, where: str) -> None:
    """UserError for a whole number below 0, and a size of the task's own below 1.

    Mappings inside are parts of their own, whose builders know which may be 0.
    """
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "items"):
        for key, inner in value.items():
            _check_sizes("", inner, f"{where}.{key}")
    elif isinstance(value, (tuple, list)):
        for number, inner in enumerate(value):
            _check_sizes(name, inner, f"{where}[{number}]")
    elif isinstance(value, int) and value < (least := int(name in _SIZES)):
        raise UserError(f"{where} is {value}: use {least} or more")


def sampling_options(task: Task) -> dict[str, Any]:
    """The options that a task samples with, by name; none for one that does not."""
    return dataclasses.asdict(task.sampling) if hasattr(task, "sampling") else {}


def with_sampling(task: Task, options: Mapping[str, Any]) -> Task:
    """The task with some of its `sampling` options changed."""
    if not options:
        return task
    own = sampling_options(task)
    if not own:
        raise UserError(f"sampling.{min(options)}: this task has no sampling options")
    sampling = schema.from_mapping(type(task.sampling), own | options, "sampling")
    try:
        return dataclasses.replace(task, sampling=sampling)
    except ValueError as error:  # it does not fit the task's other fields
        raise UserError(str(error)) from error
