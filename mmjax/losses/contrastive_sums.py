"""What the tiled contrastive losses do with one tile, and how their devices talk.

A loss is a class of static methods: statistics of rows and columns that grow tile by
tile (`none`, `sums`, `merge`, `join`), the loss from those of all tiles (`value`), and
the gradient at a tile's logits (`slope`).

Legend: b all pairs, m rows of this device, k columns of a tile, d width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Devices:
    """Those that share the rows, by mapped axis name(s); None is one device alone."""

    axis: str | tuple[str, ...] | None

    def count(self) -> int:
        """Their number."""
        return 1 if self.axis is None else jax.lax.axis_size(self.axis)

    def me(self) -> jax.Array | int:
        """The number of this one, from 0."""
        return 0 if self.axis is None else jax.lax.axis_index(self.axis)

    def _over(self, collective: Callable, x: PyTree, *args: Any, **options: Any) -> Any:
        return x if self.count() == 1 else collective(x, self.axis, *args, **options)

    def gather(self, x: PyTree) -> PyTree:
        """Rows of all devices, in order."""
        return self._over(jax.lax.all_gather, x, tiled=True)

    def sum(self, x: PyTree) -> PyTree:
        """The sum over all devices."""
        return self._over(jax.lax.psum, x)

    def max(self, x: jax.Array) -> jax.Array:
        """The maximum over all devices."""
        return self._over(jax.lax.pmax, x)

    def sum_to_owner(self, x_bd: jax.Array) -> jax.Array:
        """(b, d) partial sums to (m, d) sums of one's own rows."""
        return self._over(jax.lax.psum_scatter, x_bd, tiled=True)

    def pass_on(self, x: PyTree) -> PyTree:
        """To the next device of the ring."""
        n = self.count()
        return self._over(jax.lax.ppermute, x, [(i, (i + 1) % n) for i in range(n)])


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
        """Of m rows that have met no column yet."""
        zero_m = jnp.zeros(m)
        return Sums(jnp.full(m, -jnp.inf), zero_m, zero_m)

    @staticmethod
    def sums(z_mk: jax.Array, match_mk: jax.Array) -> tuple[Sums, Sums]:
        """Of the rows and of the columns of a tile of logits."""

        def along(axis: int) -> Sums:
            top = z_mk.max(axis)
            total = jnp.exp(z_mk - jnp.expand_dims(top, axis)).sum(axis)
            return Sums(top, total, jnp.where(match_mk, z_mk, 0.0).sum(axis))

        return along(1), along(0)

    @staticmethod
    def merge(a: Sums, b: Sums) -> Sums:
        """Of the same rows over the columns of both."""
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
        """The sum of the losses of these rows and columns."""

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

        The target is 1 / count on either side: all members of a class are equal.
        """
        row_mk = jnp.exp(z_mk - rows.top[:, None]) / rows.total[:, None]
        column_mk = jnp.exp(z_mk - columns.top) / columns.total
        return (row_mk + column_mk) / 2 - jnp.where(match_mk, 1 / count_m[:, None], 0.0)


class Sigmoid:
    """Rows alone have statistics: the sum of their pairs' losses."""

    none = staticmethod(jnp.zeros)
    merge = staticmethod(jnp.add)

    @staticmethod
    def sums(z_mk: jax.Array, match_mk: jax.Array) -> tuple[jax.Array, jax.Array]:
        wrong_mk = jax.nn.softplus(jnp.where(match_mk, -z_mk, z_mk))
        return wrong_mk.sum(1), jnp.zeros(z_mk.shape[1])

    @staticmethod
    def join(sums: jax.Array, devices: Devices) -> jax.Array:
        del devices
        return sums

    @staticmethod
    def value(rows: jax.Array, *_: jax.Array) -> jax.Array:
        return rows.sum()

    @staticmethod
    def slope(z_mk: jax.Array, match_mk: jax.Array, *_: jax.Array) -> jax.Array:
        return jnp.where(match_mk, -jax.nn.sigmoid(-z_mk), jax.nn.sigmoid(z_mk))
