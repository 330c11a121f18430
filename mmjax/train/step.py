"""One training step as one pure function, compiled two ways by `parallel`.

Under jit, arrays are global and a mean over rows is the global mean. Under pmap each
device sees its own rows, and gradients, metrics and `extra` are averaged here. The
rules that keep the two equal: losses are means over rows; rows that depend on each
other are brought together with `ctx.gather`, after which `ctx.mine` gives a device its
own; `extra` holds per-row means, or what was gathered and so is equal on all devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.state import Ctx, TrainState, Vars

PyTree = Any
GRAD_SQ = "_grad_sq"  # per-tensor squared gradient norms, in tree order


def gradients(task: Any, variables: Vars, batch: PyTree, ctx: Ctx) -> tuple:
    """(gradients, new extra, metrics with `loss`) of one (micro-)batch.

    `extra` is that of all devices, gradients and metrics are of this one.
    """
    if hasattr(task, "grads"):
        grads, extra, metrics = task.grads(variables, batch, ctx)
        return grads, _shared(extra, ctx), metrics

    def loss_fn(params: PyTree) -> tuple:
        loss, (extra, metrics) = task.loss(
            variables._replace(params=params), batch, ctx
        )
        return loss, (extra, {"loss": loss, **metrics})

    grads, (extra, metrics) = jax.grad(loss_fn, has_aux=True)(variables.params)
    return grads, _shared(extra, ctx), metrics


def _shared(extra: PyTree, ctx: Ctx) -> PyTree:
    """Means over devices of floats; integers, booleans and keys are equal on all."""
    return jax.tree.map(
        lambda x: ctx.mean(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, extra
    )


def _slices(x: PyTree, accum: int) -> PyTree:
    """(rows, ...) to (accum, rows / accum, ...): slice k has rows k, k + accum, ...

    With that stride every device keeps rows of its own shard in every slice.
    """
    return jax.tree.map(
        lambda a: jnp.moveaxis(a.reshape(-1, accum, *a.shape[1:]), 1, 0), x
    )


def _unsliced(x: PyTree) -> PyTree:
    """The inverse of `_slices`."""
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:]), x)


def _accumulate(
    task: Any, variables: Vars, batch: PyTree, ctx: Ctx, accum: int
) -> tuple:
    """Means of gradients and metrics over `accum` equal slices of the batch."""
    if hasattr(task, "observe"):
        return _accumulate_observed(task, variables, batch, ctx, accum)

    def body(carry: tuple, part: tuple) -> tuple:
        (extra, total), (number, rows) = carry, part
        grads, extra, metrics = gradients(
            task,
            variables._replace(extra=extra),
            rows,
            ctx.replace(offset=number, stride=accum),
        )
        return (extra, jax.tree.map(jnp.add, total, grads)), metrics

    start = (variables.extra, jax.tree.map(jnp.zeros_like, variables.params))
    parts = (jnp.arange(accum), _slices(batch, accum))
    (extra, total), metrics = jax.lax.scan(body, start, parts)
    grads = jax.tree.map(lambda g: g / accum, total)
    return grads, extra, jax.tree.map(lambda x: x.mean(0), metrics)


def _accumulate_observed(
    task: Any, variables: Vars, batch: PyTree, ctx: Ctx, accum: int
) -> tuple:
    """As `_accumulate`; `extra` moves once, by the statistics of all slices."""
    variables, slices = task.prepare(variables, _slices(batch, accum), ctx)

    def body(total: PyTree, part: tuple) -> tuple:
        number, rows = part
        part_ctx = ctx.replace(offset=number, stride=accum)

        def loss_fn(params: PyTree) -> tuple:
            whole = variables._replace(params=params)
            loss, seen, metrics = task.observe(whole, rows, part_ctx)
            return loss, (seen, {"loss": loss, **metrics})

        grads, out = jax.grad(loss_fn, has_aux=True)(variables.params)
        return jax.tree.map(jnp.add, total, grads), out

    start = jax.tree.map(jnp.zeros_like, variables.params)
    parts = (jnp.arange(accum), slices)
    total, ((means, rows), metrics) = jax.lax.scan(body, start, parts)
    grads = jax.tree.map(lambda g: g / accum, total)
    means, metrics = jax.tree.map(lambda x: x.mean(0), (means, metrics))
    extra, more = task.settle(variables, means, _unsliced(rows), ctx)
    return grads, _shared(extra, ctx), metrics | more


def _accumulate_coupled(
    task: Any, variables: Vars, batch: PyTree, ctx: Ctx, accum: int
) -> tuple:
    """Gradients and metrics of the loss over all rows, with activations of a slice.

    Gradient caching (Gao et al. 2021, arXiv 2101.06983): embed every slice and keep the
    embeddings alone; take the loss and its gradient at the embeddings of the whole
    batch; embed every slice again, and pull its embeddings' gradient back to the
    parameters. That is one more forward pass than a batch in one piece.

    `extra` goes from slice to slice as in `_accumulate`, the same way both times, or,
    for a task with `settle`, moves once: batch norm takes the statistics of a slice,
    and its running averages their mean.
    """
    once = hasattr(task, "settle")

    def embed(params: PyTree, extra: PyTree, part: tuple) -> tuple:
        number, rows = part
        part_ctx = ctx.replace(offset=number, stride=accum)
        embedded, extra = task.embed(
            variables._replace(params=params, extra=extra), rows, part_ctx
        )
        return embedded, _shared(extra, ctx)

    def first(extra: PyTree, part: tuple) -> tuple:
        embedded, new = embed(variables.params, extra, part)
        return extra if once else new, embedded

    parts = (jnp.arange(accum), _slices(batch, accum))
    embedded = _unsliced(jax.lax.scan(first, variables.extra, parts)[1])

    def loss_fn(params: PyTree, embedded: PyTree) -> tuple:
        whole = variables._replace(params=params)
        loss, metrics = task.loss_of(whole, embedded, batch, ctx)
        return loss, {"loss": loss, **metrics}

    (total, pull), metrics = jax.grad(loss_fn, (0, 1), has_aux=True)(
        variables.params, embedded
    )

    def second(carry: tuple, part: tuple) -> tuple:
        (extra, total), (rows, pull) = carry, part
        _, back, new = jax.vjp(
            lambda params: embed(params, extra, rows), variables.params, has_aux=True
        )
        total = jax.tree.map(jnp.add, total, back(pull)[0])
        return (extra if once else new, total), new if once else None

    start = (variables.extra, total)
    (extra, grads), each = jax.lax.scan(second, start, (parts, _slices(pull, accum)))
    if once:
        means = jax.tree.map(lambda x: x.mean(0), each)
        extra, more = task.settle(variables, means, {}, ctx)
        metrics |= more
    return grads, extra, metrics


def _value_fn(
    task: Any, variables: Vars, batch: PyTree, ctx: Ctx
) -> Callable[[PyTree], jax.Array]:
    """The global loss as a function of the parameters, for a line search.

    Random numbers and `extra` are those of the step. The gradient is the mean over
    devices, as the step's is: that of a mean's own would be each device's.
    """

    def loss(params: PyTree) -> jax.Array:
        return task.loss(variables._replace(params=params), batch, ctx)[0]

    @jax.custom_vjp
    def value(params: PyTree) -> jax.Array:
        return ctx.mean(loss(params))

    value.defvjp(
        lambda params: ctx.mean(jax.value_and_grad(loss)(params)),
        lambda grads, out: (jax.tree.map(lambda g: out * g, grads),),
    )
    return value


def train_step(
    task: Any,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: PyTree,
    *,
    axis: str | None = None,
    rows: jax.sharding.NamedSharding | None = None,
    accum: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Returns the next state and scalar metrics.

    Args:
      task: a `mmjax.tasks.base.Task`.
      tx: the optimizer chain of `mmjax.train.optim`. It is given `value`, `grad` and
        `value_fn` as well, as optax's line searches ask.
      batch: dict of arrays with a leading row axis (global under jit).
      axis: the pmap axis' name, or None under jit.
      rows: how rows lie on the mesh under jit, for `Ctx.rows`.
      accum: gradient accumulation slices; 1 where rows couple, unless the task has
        `embed` and `loss_of`.
      ema_decay: decay of the parameter average; 0 keeps none.
    """
    ctx = Ctx(
        rng=jax.random.fold_in(state.rng, state.step),
        step=state.step,
        train=True,
        axis=axis,
        rows=rows,
    )
    if accum == 1:
        grads, extra, metrics = gradients(task, state.vars, batch, ctx)
    else:
        accumulate = _accumulate_coupled if task.couples_rows else _accumulate
        grads, extra, metrics = accumulate(task, state.vars, batch, ctx, accum)
    grads, metrics = ctx.mean((grads, metrics))
    updates, opt_state = optax.with_extra_args_support(tx).update(
        grads,
        state.opt_state,
        state.vars.params,
        value=metrics["loss"],
        grad=grads,
        value_fn=_value_fn(task, state.vars, batch, ctx),
    )
    params = optax.apply_updates(state.vars.params, updates)
    if hasattr(task, "bounded"):
        params = task.bounded(params)
    ema = state.ema
    if ema is not None:
        # Bias-free start: early averages follow the parameters closely.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
    grad_sq_k = jnp.array(
        [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(grads)],
        jnp.float32,
    )
    metrics |= {"grad_norm": jnp.sqrt(grad_sq_k.sum()), GRAD_SQ: grad_sq_k}
    new_state = state.replace(
        step=state.step + 1,
        vars=state.vars._replace(params=params, extra=extra),
        opt_state=opt_state,
        ema=ema,
    )
    return new_state, metrics
