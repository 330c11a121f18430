"""What the tiled contrastive losses do with one tile, and how their devices talk.

A loss is a class of static methods: statistics of rows and columns that grow tile by
tile (`none`, `sums`, `merge`, `join`), the loss from those of all tiles (`value`), and
the gradient at a tile's logits (`slope`).

Legend: b all pairs, m rows of this device, k columns of a tile, d width.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Devices:
    """Those that share the rows, by mapped axis name(s); None is one device alone."""

    axis: str | tuple[str, ...] | None

    def count(self) -> int:
        return 1 if self.axis is None else jax.lax.axis_size(self.axis)

    def me(self) -> jax.Array | int:
        return 0 if self.axis is None else jax.lax.axis_index(self.axis)

    def gather(self, x: PyTree) -> PyTree:
        """Rows of all devices, in order."""
        if self.axis is None:
            return x
        return jax.tree.map(lambda a: jax.lax.all_gather(a, self.axis, tiled=True), x)

    def sum(self, x: PyTree) -> PyTree:
        return x if self.axis is None else jax.lax.psum(x, self.axis)

    def max(self, x: jax.Array) -> jax.Array:
        return x if self.axis is None else jax.lax.pmax(x, self.axis)

    def sum_to_owner(self, x_bd: jax.Array) -> jax.Array:
        """(b, d) partial sums to (m, d) sums of one's own rows."""
        if self.axis is None:
            return x_bd
        return jax.lax.psum_scatter(x_bd, self.axis, tiled=True)

    def pass_on(self, x: PyTree) -> PyTree:
        """To the next device of the ring."""
        n = self.count()
        if n == 1:
            return x
        ring = [(i, (i + 1) % n) for i in range(n)]
        return jax.tree.map(lambda a: jax.lax.ppermute(a, self.axis, ring), x)


class Sums(NamedTuple):
    """Of one row or column each: running log-sum-exp, and its positives' logits."""

    top: jax.Array  # the largest logit
    total: jax.Array  # sum of exp(logit - top)
    hit: jax.Array  # sum of the logits of positives


class InfoNCE:
    """Statistics of rows and columns alike; every row and column has `count` positives.

    The largest logit is subtracted from the positives' before the logarithm is added:
    where both are near 100 and the loss is near 0, their difference is exact.
    """

    @staticmethod
    def none(m: int) -> Sums:
        zero_m = jnp.zeros(m)
        return Sums(jnp.full(m, -jnp.inf), zero_m, zero_m)

    @staticmethod
    def sums(z_mk: jax.Array, match_mk: jax.Array) -> tuple[Sums, Sums]:
        def along(axis: int) -> Sums:
            top = z_mk.max(axis)
            total = jnp.exp(z_mk - jnp.expand_dims(top, axis)).sum(axis)
            return Sums(top, total, jnp.where(match_mk, z_mk, 0.0).sum(axis))

        return along(1), along(0)

    @staticmethod
    def merge(a: Sums, b: Sums) -> Sums:
        top = jnp.maximum(a.top, b.top)
        total = a.total * jnp.exp(a.top - top) + b.total * jnp.exp(b.top - top)
        return Sums(top, total, a.hit + b.hit)

    @staticmethod
    def join(sums: Sums, devices: Devices) -> Sums:
        """`merge` over all devices."""
        top = devices.max(sums.top)
        total, hit = devices.sum((sums.total * jnp.exp(sums.top - top), sums.hit))
        return Sums(top, total, hit)

    @staticmethod
    def value(rows: Sums, columns: Sums, count_m: jax.Array) -> jax.Array:
        def losses(s: Sums) -> jax.Array:
            return s.top - s.hit / count_m + jnp.log(s.total)

        return (losses(rows) + losses(columns)).sum() / 2

    @staticmethod
    def slope(
        z_mk: jax.Array,
        match_mk: jax.Array,
        rows: Sums,
        columns: Sums,
        count_m: jax.Array,
    ) -> jax.Array:
        """d(sum of losses)/dz: (softmax of the row + softmax of the column)/2 - target.

        The target, 1 / count, is the same from both sides: what equals a row equals
        all that equal it.
        """
        row_mk = jnp.exp(z_mk - rows.top[:, None]) / rows.total[:, None]
        column_mk = jnp.exp(z_mk - columns.top) / columns.total
        return (row_mk + column_mk) / 2 - jnp.where(match_mk, 1 / count_m[:, None], 0.0)


class Sigmoid:
    """Rows alone have statistics: the sum of their pairs' losses."""

    @staticmethod
    def none(m: int) -> jax.Array:
        return jnp.zeros(m)

    @staticmethod
    def sums(z_mk: jax.Array, match_mk: jax.Array) -> tuple[jax.Array, jax.Array]:
        wrong_mk = jax.nn.softplus(jnp.where(match_mk, -z_mk, z_mk))
        return wrong_mk.sum(1), jnp.zeros(z_mk.shape[1])

    @staticmethod
    def merge(a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    @staticmethod
    def join(sums: jax.Array, devices: Devices) -> jax.Array:
        del devices
        return sums

    @staticmethod
    def value(rows: jax.Array, columns: jax.Array, count_m: jax.Array) -> jax.Array:
        del columns, count_m
        return rows.sum()

    @staticmethod
    def slope(
        z_mk: jax.Array,
        match_mk: jax.Array,
        rows: jax.Array,
        columns: jax.Array,
        count_m: jax.Array,
    ) -> jax.Array:
        del rows, columns, count_m
        return jnp.where(match_mk, -jax.nn.sigmoid(-z_mk), jax.nn.sigmoid(z_mk))
