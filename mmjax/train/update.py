"""States and steps of a task: the one place where the training step is put together."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax import parallel
from mmjax.errors import UserError
from mmjax.state import TrainState, Vars
from mmjax.tasks import base
from mmjax.train import optim
from mmjax.train import step as step_lib

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Update:
    """A task with its optimizer, on a layout."""

    task: base.Task
    layout: parallel.Layout
    shapes: Vars  # of the task's variables
    tx: optax.GradientTransformationExtraArgs
    rates: Mapping[str, optim.Schedule]  # learning rates by logged name
    cfg: optim.OptimConfig

    def init(self, key: jax.Array, batch: PyTree) -> TrainState:
        """The state at step 0."""
        variables = self.task.init(jax.random.fold_in(key, 0), batch)
        average = None
        if self.cfg.ema > 0:
            average = jax.tree.map(lambda p: p + 0, variables.params)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            vars=variables,
            opt_state=self.tx.init(variables.params),
            ema=average,
            rng=jax.random.fold_in(key, 1),
        )

    def abstract(self, batch: PyTree, *, optimizer: bool = True) -> TrainState:
        """Shapes with shardings of a state; `opt_state` is None without `optimizer`."""
        state = jax.eval_shape(self.init, jax.random.key(0), batch)
        state = state if optimizer else state.replace(opt_state=None)
        return self.layout.abstract(state)

    @functools.cached_property
    def step(self) -> Callable:
        """step(state, batch) -> (state, metrics), for `Layout.compile_step`."""
        return functools.partial(
            step_lib.train_step,
            self.task,
            self.tx,
            axis=self.layout.axis,
            rows=self.layout.row_sharding,
            accum=self.cfg.accum,
            ema_decay=self.cfg.ema,
        )


def build(
    task: base.Task,
    cfg: optim.OptimConfig,
    layout: parallel.Layout,
    *,
    steps: int,
    batch: PyTree,
) -> Update:
    """Checks `config.optim` against the task; nothing is compiled.

    Args:
      cfg: `config.optim`.
      steps: length of the run, for schedules.
      batch: arrays or their shapes, to make the variables' shapes from.
    """
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    whole = task.couples_rows and (not hasattr(task, "embed") or hasattr(task, "grads"))
    tx, rates, cfg = optim.make(cfg, steps, shapes.params, couples_rows=whole)
    if cfg.name == "lbfgs" and hasattr(task, "grads"):
        raise UserError(
            "config.optim.name is lbfgs, but this task gives gradients of its own, "
            "which are not those of a loss to search along: use another optimizer"
        )
    return Update(task, layout, shapes, tx, rates, cfg)
