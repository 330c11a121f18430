"""The losses of `contrastive` in tiles: equal values and gradients, no (b, b) array.

A device holds m of the b images and texts and meets all texts in tiles of `block`
columns. It keeps running statistics of its rows, and of the columns as far as its own
rows go; those of all devices are then merged. The gradient computes each tile anew.

- chunked: texts are gathered first, (b, d) on every device, and the gradients to texts
  are summed back to their owners.
- ring: the texts of one device at a time, with their columns' statistics or gradients,
  go round the devices (the scheme of Liu et al. 2023, "Ring Attention", for pairs);
  a device holds (m, d) of them.

Either way a device multiplies (m, d) by (d, b) once forward and three times backward;
the dense form under jit does the same less one.

Legend: b all pairs, m pairs of this device, c columns at hand, k columns of a tile,
d width, l numbers of a key.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.losses import contrastive
from mmjax.losses.contrastive_sums import Devices, InfoNCE, Sigmoid

PyTree = Any
Maths = type[InfoNCE] | type[Sigmoid]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is static about one call."""

    maths: Maths
    block: int
    ring: bool
    placed: str | NamedSharding | None

    @property
    def devices(self) -> Devices:
        named = isinstance(self.placed, NamedSharding)
        return Devices(self.placed.spec[0] if named else self.placed)

    def call(self, fn: Callable, rows_in: tuple[bool, ...], rows_out: PyTree) -> Any:
        """fn on the rows of each device. Flags: split by rows, or the same for all.

        Its gradient is never asked for: forward and backward are both such calls. So
        replication is not tracked, and what is returned as the same for all is a sum
        over devices.
        """
        if not isinstance(self.placed, NamedSharding):
            return fn
        split, same = PartitionSpec(self.placed.spec[0]), PartitionSpec()
        pick = functools.partial(jax.tree.map, lambda rows: split if rows else same)
        return jax.shard_map(
            fn,
            mesh=self.placed.mesh,
            in_specs=pick(rows_in),
            out_specs=pick(rows_out),
            check_vma=False,
        )


class _Columns(NamedTuple):
    """Texts at hand with what belongs to them."""

    text_cd: jax.Array
    id_c: jax.Array
    index_c: jax.Array  # their global row numbers
    more: PyTree = ()


def _tiles(visit: Callable, carry: PyTree, columns: PyTree, block: int) -> tuple:
    """`carry, out = visit(carry, a tile of columns)` over all; outs are put together.

    The last tile is smaller where `block` does not divide the columns.
    """
    count = len(jax.tree.leaves(columns)[0])
    block = min(block, count)
    whole = count // block * block
    head = jax.tree.map(lambda a: a[:whole].reshape(-1, block, *a.shape[1:]), columns)
    carry, out = jax.lax.scan(visit, carry, head)
    out = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), out)
    if whole < count:
        carry, rest = visit(carry, jax.tree.map(lambda a: a[whole:], columns))
        out = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)
    return carry, out


def _round(
    plan: _Plan,
    visit: Callable,
    carry: PyTree,
    columns: _Columns,
    travelling: PyTree,
    add: Callable,
) -> tuple[PyTree, PyTree]:
    """`_tiles` over one's own columns, then over the neighbour's, once round the ring.

    `travelling` goes with the columns and comes home as `add(travelling, outs)` over
    all devices.
    """

    def hop(held: tuple, _: None) -> tuple[tuple, None]:
        carry, columns, travelling = held
        carry, out = _tiles(visit, carry, columns, plan.block)
        columns, travelling = plan.devices.pass_on((columns, add(travelling, out)))
        return (carry, columns, travelling), None

    start = (carry, columns, travelling)
    (carry, _, travelling), _ = jax.lax.scan(hop, start, length=plan.devices.count())
    return carry, travelling


def _own(plan: _Plan, x_b: PyTree, m: int) -> PyTree:
    """This device's rows of what all devices hold."""
    start = plan.devices.me() * m
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, m), x_b)


class _Kept(NamedTuple):
    """What the gradient needs from the forward pass, rows of this device."""

    id_m: jax.Array
    count_m: jax.Array  # pairs of all devices with this id
    rows: PyTree
    columns: PyTree


def _best(old: tuple, cos_mk: jax.Array, index_k: jax.Array) -> tuple:
    """(cosine, global row) of the nearest text so far; the lowest row where equal."""
    value_m, row_m = cos_mk.max(1), index_k[cos_mk.argmax(1)]
    equal_m = (value_m == old[0]) & (row_m < old[1])
    better_m = (value_m > old[0]) | equal_m
    return jnp.where(better_m, value_m, old[0]), jnp.where(better_m, row_m, old[1])


def _forward(plan: _Plan, image_md, text_md, scale, bias, keys_ml) -> tuple:
    """On one device: (loss, hit_m, what is kept)."""
    maths, devices, m = plan.maths, plan.devices, len(image_md)
    b = m * devices.count()
    id_b = jnp.arange(b)
    if keys_ml is not None:
        id_b = contrastive.row_ids(devices.gather(keys_ml))
    id_m = _own(plan, id_b, m)
    count_m = jnp.zeros(b).at[id_b].add(1.0)[id_m]

    def visit(carry: tuple, columns: _Columns) -> tuple:
        rows, best = carry
        cos_mk = contrastive.similarity(image_md, columns.text_cd)
        match_mk = id_m[:, None] == columns.id_c
        row_sums, column_sums = maths.sums(scale * cos_mk + bias, match_mk)
        best = _best(best, cos_mk, columns.index_c)
        return (maths.merge(rows, row_sums), best), column_sums

    nothing = (jnp.full(m, -jnp.inf), jnp.full(m, b))
    carry = (maths.none(m), nothing)
    own = _Columns(text_md, id_m, _own(plan, jnp.arange(b), m))
    if plan.ring:
        (rows, best), columns = _round(
            plan, visit, carry, own, maths.none(m), maths.merge
        )
    else:
        everyone = _Columns(devices.gather(text_md), id_b, jnp.arange(b))
        (rows, best), columns = _tiles(visit, carry, everyone, plan.block)
        columns = _own(plan, maths.join(columns, devices), m)
    loss = devices.sum(maths.value(rows, columns, count_m)) / b
    return loss, id_b[best[1]] == id_m, _Kept(id_m, count_m, rows, columns)


def _backward(plan: _Plan, kept, image_md, text_md, scale, bias, grad) -> tuple:
    """On one device: gradients to its images and texts, to scale and bias."""
    devices, m = plan.devices, len(image_md)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def visit(carry: tuple, columns: _Columns) -> tuple:
        to_image_md, to_scale, to_bias = carry
        cos_mk = contrastive.similarity(image_md, columns.text_cd)
        match_mk = kept.id_m[:, None] == columns.id_c
        slope_mk = plan.maths.slope(
            scale * cos_mk + bias, match_mk, kept.rows, columns.more, kept.count_m
        )
        carry = (
            to_image_md + product(slope_mk, columns.text_cd),
            to_scale + (slope_mk * cos_mk).sum(),
            to_bias + slope_mk.sum(),
        )
        return carry, product(slope_mk.T, image_md)

    own = _Columns(text_md, kept.id_m, kept.id_m, kept.columns)
    carry = (jnp.zeros_like(image_md), jnp.float32(0.0), jnp.float32(0.0))
    if plan.ring:
        carry, to_text_md = _round(
            plan, visit, carry, own, jnp.zeros_like(text_md), jnp.add
        )
    else:
        carry, to_text_bd = _tiles(visit, carry, devices.gather(own), plan.block)
        to_text_md = devices.sum_to_owner(to_text_bd)
    to_image_md, to_scale, to_bias = carry
    to_scale, to_bias = devices.sum((to_scale, to_bias))
    each = grad / (m * devices.count())
    # Under pmap every device has its own copy of the loss, all of which see each row.
    pull = devices.sum(each) if isinstance(plan.placed, str) else each
    return (
        pull * scale * to_image_md,
        pull * scale * to_text_md,
        each * to_scale,
        each * to_bias,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(plan, image_bd, text_bd, scale, bias, keys_bl) -> tuple[jax.Array, jax.Array]:
    return _loss_forward(plan, image_bd, text_bd, scale, bias, keys_bl)[0]


def _loss_forward(plan, *args) -> tuple:
    fn = plan.call(
        functools.partial(_forward, plan),
        (True, True, False, False, True),
        (False, True, True),
    )
    loss, hit_b, kept = fn(*args)
    return (loss, hit_b), (kept, *args[:4])


def _loss_backward(plan, kept, grads) -> tuple:
    fn = plan.call(
        functools.partial(_backward, plan),
        (True, True, True, False, False, False),
        (True, True, False, False),
    )
    return (*fn(*kept, grads[0]), None)


_loss.defvjp(_loss_forward, _loss_backward)


def _start(
    maths: Maths,
    arrays: tuple[jax.Array, jax.Array],
    numbers: tuple,
    *,
    keys: jax.Array | None = None,
    block: int,
    ring: bool = False,
    placed: str | NamedSharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    rows = len(arrays[0])
    if block < 1:
        raise UserError(f"block is {block}: give the columns of a tile, 1 or more")
    if isinstance(placed, NamedSharding):
        first = placed.spec[0]
        names = (first,) if isinstance(first, str) else first
        devices = math.prod(placed.mesh.shape[name] for name in names)
        if rows % devices:
            raise UserError(
                f"{rows} pairs must split over {devices} devices: use a multiple"
            )
    values = [jnp.asarray(x, jnp.float32) for x in (*arrays, *numbers)]
    return _loss(_Plan(maths, block, ring, placed), *values, keys)


def info_nce(
    image_bd: jax.Array, text_bd: jax.Array, scale: jax.Array | float, **tiling: Any
) -> tuple[jax.Array, jax.Array]:
    """`contrastive.info_nce` in tiles: (loss, hit).

    `hit`, bool (b,), is whether a positive is the image's nearest text (of equally near
    ones the first); it has no gradient.

    Args:
      image_bd: image embeddings with rows of unit length; under pmap this device's.
      text_bd: text embeddings, likewise.
      scale: `exp(t)`, the inverse temperature.
      keys: optional integers (b, l): pairs whose keys are equal count as matching.
      block: columns of a tile; a device holds a few (b / devices, block) arrays.
      ring: pass texts round the devices instead of gathering them.
      placed: where the rows lie: the mapped axis' name under pmap; under jit a sharding
        whose first dimension names the mesh axes; None is one device, or the compiler's
        choice.
    """
    return _start(InfoNCE, (image_bd, text_bd), (scale, 0.0), **tiling)


def sigmoid(
    image_bd: jax.Array,
    text_bd: jax.Array,
    scale: jax.Array | float,
    bias: jax.Array | float,
    **tiling: Any,
) -> tuple[jax.Array, jax.Array]:
    """`contrastive.sigmoid` in tiles: (loss, hit); see `info_nce`."""
    return _start(Sigmoid, (image_bd, text_bd), (scale, bias), **tiling)
