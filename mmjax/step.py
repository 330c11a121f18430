"""One training step as one pure function, compiled two ways by `parallel`.

Under jit, arrays are global and a mean over rows is the global mean. Under pmap each
device sees its own rows, and gradients, metrics and `extra` are averaged here. The
rules that keep the two equal: losses are means over rows; rows that depend on each
other are brought together with `ctx.gather`; `extra` is built from per-row means.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.state import Ctx, TrainState, Vars

PyTree = Any
GRAD_SQ = "_grad_sq"  # per-tensor squared gradient norms, in tree order


def _grads(task: Any, variables: Vars, batch: PyTree, ctx: Ctx) -> tuple:
    """(gradients, new extra, metrics with `loss`) of one (micro-)batch."""
    if hasattr(task, "grads"):
        return task.grads(variables, batch, ctx)

    def loss_fn(params: PyTree) -> tuple:
        loss, (extra, metrics) = task.loss(
            variables._replace(params=params), batch, ctx
        )
        return loss, (extra, {"loss": loss, **metrics})

    grads, (extra, metrics) = jax.grad(loss_fn, has_aux=True)(variables.params)
    return grads, extra, metrics


def _accumulate(
    task: Any, variables: Vars, batch: PyTree, ctx: Ctx, accum: int
) -> tuple:
    """Means of gradients and metrics over `accum` equal slices of the batch.

    Slices are taken with a stride (rows i, i+accum, ...), so that under jit every
    device keeps rows of its own shard in every slice.
    """

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(-1, accum, *x.shape[1:]), 1, 0)

    slices = jax.tree.map(split, batch)

    def body(extra: PyTree, part: tuple) -> tuple:
        number, rows_of_slice = part
        # Distinct noise per slice: slices must not share row keys.
        part_ctx = ctx.replace(rng=jax.random.fold_in(ctx.rng, number))
        grads, extra, metrics = _grads(
            task, variables._replace(extra=extra), rows_of_slice, part_ctx
        )
        return extra, (grads, metrics)

    extra, stacked = jax.lax.scan(body, variables.extra, (jnp.arange(accum), slices))
    grads, metrics = jax.tree.map(lambda x: x.mean(0), stacked)
    return grads, extra, metrics


def train_step(
    task: Any,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: PyTree,
    *,
    axis: str | None = None,
    accum: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Returns the next state and scalar metrics.

    Args:
      task: a `mmjax.tasks.base.Task`.
      tx: the optimizer chain of `mmjax.optim`.
      batch: dict of arrays with a leading row axis (global under jit).
      axis: the pmap axis' name, or None under jit.
      accum: gradient accumulation slices; 1 where rows couple.
      ema_decay: decay of the parameter average; 0 keeps none.
    """
    ctx = Ctx(
        rng=jax.random.fold_in(state.rng, state.step),
        step=state.step,
        train=True,
        axis=axis,
    )
    if accum == 1:
        grads, extra, metrics = _grads(task, state.vars, batch, ctx)
    else:
        grads, extra, metrics = _accumulate(task, state.vars, batch, ctx, accum)
    grads, extra, metrics = ctx.mean((grads, extra, metrics))

    updates, opt_state = tx.update(grads, state.opt_state, state.vars.params)
    params = optax.apply_updates(state.vars.params, updates)
    ema = state.ema
    if ema is not None:
        # Bias-free start: early averages follow the parameters closely.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
    grad_sq_k = jnp.stack(
        [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(grads)]
    )
    metrics |= {"grad_norm": jnp.sqrt(grad_sq_k.sum()), GRAD_SQ: grad_sq_k}
    new_state = state.replace(
        step=state.step + 1,
        vars=state.vars._replace(params=params, extra=extra),
        opt_state=opt_state,
        ema=ema,
    )
    return new_state, metrics
