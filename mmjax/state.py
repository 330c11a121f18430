"""What a training step reads and writes: variables, train state, loss context."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.errors import UserError

PyTree = Any


class Vars(NamedTuple):
    """All arrays of a model, split by who may change them."""

    params: PyTree  # differentiated and optimised
    extra: PyTree = {}  # rewritten by the loss: batch statistics, EMA codebooks
    frozen: PyTree = {}  # read only: stage-1 weights; no gradients, no optimizer slots


@struct.dataclass
class TrainState:
    """The whole state of a run, less the data order (a function of the step)."""

    step: jax.Array  # int32 scalar: updates done
    vars: Vars
    opt_state: PyTree
    ema: PyTree | None  # moving average of params, or None
    rng: jax.Array  # typed key; a step folds its number in, so it never changes

    def eval_vars(self) -> Vars:
        """Variables to evaluate with: the parameter average where one is kept."""
        if self.ema is None:
            return self.vars
        return self.vars._replace(params=self.ema)


@struct.dataclass
class Ctx:
    """All that a loss may know about when and where it runs.

    `axis` is None under jit, where arrays are global, and the mapped axis' name
    under pmap, where each device sees its own rows. `rows` is how rows lie on the mesh
    under jit, for losses that place their own work; None leaves it to the compiler.
    A batch may be a slice of the step's: its row i is row `stride * i + offset` of it.
    """

    rng: jax.Array
    step: jax.Array
    train: bool = struct.field(pytree_node=False, default=False)
    axis: str | None = struct.field(pytree_node=False, default=None)
    rows: jax.sharding.NamedSharding | None = struct.field(
        pytree_node=False, default=None
    )
    offset: jax.Array | int = 0
    stride: int = struct.field(pytree_node=False, default=1)

    def gather(self, x: PyTree) -> PyTree:
        """Rows of all devices: identity under jit, all_gather under pmap."""
        if self.axis is None:
            return x
        return jax.tree.map(lambda a: jax.lax.all_gather(a, self.axis, tiled=True), x)

    def mine(self, x: PyTree) -> PyTree:
        """This device's rows of what `gather` brought together: identity under jit."""
        if self.axis is None:
            return x
        devices, index = jax.lax.axis_size(self.axis), jax.lax.axis_index(self.axis)

        def rows(a: jax.Array) -> jax.Array:
            n, left = divmod(len(a), devices)
            if left:
                raise UserError(
                    f"{len(a)} rows do not split over {devices} devices: "
                    f"use {n * devices or devices} rows"
                )
            return jax.lax.dynamic_slice_in_dim(a, index * n, n)

        return jax.tree.map(rows, x)

    def mean(self, x: PyTree) -> PyTree:
        """Mean over devices: identity under jit, pmean under pmap."""
        return x if self.axis is None else jax.lax.pmean(x, self.axis)

    def example_keys(self, n: int) -> jax.Array:
        """One key per row, (n,): a function of the row's global number alone."""
        rows_n = jnp.arange(n) * self.stride + self.offset
        if self.axis is not None:
            rows_n = rows_n + jax.lax.axis_index(self.axis) * n * self.stride
        return jax.vmap(lambda i: jax.random.fold_in(self.rng, i))(rows_n)
