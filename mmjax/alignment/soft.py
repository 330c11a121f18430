"""Soft-DTW: the soft minimum of the costs of all monotone paths, and its gradient.

Cuturi and Blondel 2017: softmin_g(a) = -g log sum exp(-a / g). Legend: b pairs, n and m
frames, d columns, k anti-diagonals.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.alignment import grid
from mmjax.alignment.grid import BIG, Band


def _table(
    cost_nmb: jax.Array, gamma: jax.Array, *, keep: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """R of the paper's algorithm 1 in anti-diagonals, (k, n, b).

    keep: whether to return as well, shaped alike, the shares that the cell to the left
      and the one above have in a cell's soft minimum; the diagonal one has the rest.
    """
    cost_nkb = grid.skewed(cost_nmb)
    n, steps, b = cost_nkb.shape
    nothing = jnp.zeros((0, b), cost_nmb.dtype)

    def step(carry: tuple, k: jax.Array) -> tuple[tuple, tuple]:
        one_nb, two_nb = carry
        fresh = jnp.where(k == 0, 0.0, BIG).astype(one_nb.dtype)
        up_nb, diagonal_nb = grid.shifted(one_nb, BIG), grid.shifted(two_nb, fresh)
        least_nb = jnp.minimum(jnp.minimum(one_nb, up_nb), diagonal_nb)
        left, up, diagonal = (
            jnp.exp((least_nb - r_nb) / gamma) for r_nb in (one_nb, up_nb, diagonal_nb)
        )
        total = left + up + diagonal
        cost_nb = jax.lax.dynamic_index_in_dim(cost_nkb, k, 1, keepdims=False)
        now_nb = cost_nb + least_nb - gamma * jnp.log(total)
        shares = (left / total, up / total) if keep else (nothing, nothing)
        return (now_nb, one_nb), (now_nb, *shares)

    none_nb = jnp.full((n, b), BIG, cost_nmb.dtype)
    return jax.lax.scan(step, (none_nb, none_nb), jnp.arange(steps))[1]


def _read(table_knb: jax.Array, n_b: jax.Array, m_b: jax.Array) -> jax.Array:
    return table_knb[n_b + m_b - 2, n_b - 1, jnp.arange(len(n_b))]


@jax.custom_vjp
def of_cost(
    cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Soft-DTW of a grid of costs (n, m, b) whose pairs have n_b and m_b frames: (b,).

    The gradient is the expected alignment E of algorithm 2, and 0 in gamma. It needs
    three tables of n (n + m) numbers a pair beside the costs.
    """
    return _read(_table(cost_nmb, gamma, keep=False)[0], n_b, m_b)


def _forward(
    cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array, gamma: jax.Array
) -> tuple[jax.Array, tuple]:
    table_knb, *shares = _table(cost_nmb, gamma, keep=True)
    return _read(table_knb, n_b, m_b), (*shares, n_b, m_b, gamma)


def _backward(saved: tuple, g_b: jax.Array) -> tuple:
    """E from the last anti-diagonal to the first.

    A cell hands its E on to the three cells before it by their shares, which sum to 1,
    so that rounding loses no mass.
    """
    left_knb, up_knb, n_b, m_b, gamma = saved
    steps, n, b = left_knb.shape
    rows_n1 = jnp.arange(n)[:, None]

    def above(e_nb: jax.Array) -> jax.Array:  # row i + 1 at row i
        return jnp.pad(e_nb[1:], ((0, 1), (0, 0)))

    def step(carry: tuple, at: tuple) -> tuple[tuple, jax.Array]:
        e_nb, next_nb = carry
        k, left_nb, up_nb = at
        e_nb += jnp.where((k == n_b + m_b - 2) & (rows_n1 == n_b - 1), g_b, 0.0)
        left_nb, up_nb = left_nb * e_nb, up_nb * e_nb
        to_one_nb = next_nb + left_nb + above(up_nb)
        return (to_one_nb, above(e_nb - left_nb - up_nb)), e_nb

    start = (jnp.zeros((n, b), left_knb.dtype),) * 2
    rows = jnp.arange(steps), left_knb, up_knb
    e_knb = jax.lax.scan(step, start, rows, reverse=True)[1]
    none = (np.zeros(a.shape, jax.dtypes.float0) for a in (n_b, m_b))
    return grid.straight(e_knb.transpose(1, 0, 2)), *none, jnp.zeros_like(gamma)


of_cost.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames="band")
def value(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_b: jax.Array | None = None,
    m_b: jax.Array | None = None,
    *,
    gamma: float = 1.0,
    band: Band | None = None,
) -> jax.Array:
    """Soft-DTW of squared distances, (b,), in units of their square.

    Args:
      x_bnd, y_bmd: sequences, padded to one length with any finite numbers.
      n_b, m_b: int (b,) frames that count; None: all.
      gamma: above 0, in units of the squared distances.
      band: the cells that paths may enter. Without a path inside it, the value is 1e30.
    """
    n_b, m_b = grid.lengths(x_bnd, n_b), grid.lengths(y_bmd, m_b)
    return _value(x_bnd, y_bmd, n_b, m_b, jnp.asarray(gamma, x_bnd.dtype), band)


def _part(rows: tuple, gamma: jax.Array, band: Band | None) -> jax.Array:
    x_bnd, y_bmd, n_b, m_b = rows
    cost_nmb = grid.squared_distances(x_bnd, y_bmd)
    return of_cost(grid.inside(cost_nmb, n_b, m_b, band), n_b, m_b, gamma)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _value(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_b: jax.Array,
    m_b: jax.Array,
    gamma: jax.Array,
    band: Band | None,
) -> jax.Array:
    rows = x_bnd, y_bmd, n_b, m_b
    return grid.in_parts(lambda rows: _part(rows, gamma, band), rows)


def _value_forward(*args: Any) -> tuple[jax.Array, tuple]:
    """Values with their gradients, part by part, so that no table outlives its part."""
    *rows, gamma, band = args

    def both(rows: tuple) -> tuple[jax.Array, tuple]:
        def total(x_bnd: jax.Array, y_bmd: jax.Array) -> tuple[jax.Array, jax.Array]:
            value_b = _part((x_bnd, y_bmd, *rows[2:]), gamma, band)
            return value_b.sum(), value_b

        run = jax.value_and_grad(total, (0, 1), has_aux=True)
        (_, value_b), grads = run(*rows[:2])
        return value_b, grads

    value_b, grads = grid.in_parts(both, tuple(rows))
    return value_b, (grads, *rows[2:], gamma)


def _value_backward(band: Band | None, saved: tuple, g_b: jax.Array) -> tuple:
    grads, *lengths, gamma = saved
    slopes = (g_b[:, None, None] * grad for grad in grads)
    none = (np.zeros(a.shape, jax.dtypes.float0) for a in lengths)
    return *slopes, *none, jnp.zeros_like(gamma)


_value.defvjp(_value_forward, _value_backward)


@jax.jit
def divergence(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_b: jax.Array | None = None,
    m_b: jax.Array | None = None,
    *,
    gamma: float = 1.0,
) -> jax.Array:
    """Soft-DTW less half of each sequence's own; at least 0, and 0 for equal ones.

    Blondel, Mensch and Vert 2021, equation 9.
    """
    both = value(x_bnd, y_bmd, n_b, m_b, gamma=gamma)
    own = value(x_bnd, x_bnd, n_b, n_b, gamma=gamma)
    return both - 0.5 * (own + value(y_bmd, y_bmd, m_b, m_b, gamma=gamma))
