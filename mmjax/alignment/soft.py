"""Soft-DTW: the soft minimum of the costs of all monotone paths, and its gradient.

Cuturi and Blondel 2017: softmin_g(a) = -g log sum exp(-a / g). Legend: b pairs, n and m
frames, d columns, k anti-diagonals; c lanes of q pairs each, one after the other.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.alignment import grid
from mmjax.alignment.grid import BIG, Band

_LANES = 32


def _streams(b: int) -> int:
    """q: how many pairs follow each other in a lane, where b splits into lanes.

    On n anti-diagonals at either end of a grid some rows have no cell. Those that the
    next pair of the lane begins on fill them: nearly half of the work of one pair.
    """
    return b // _LANES if b % _LANES == 0 else 1


def _folded(cost_nmb: jax.Array) -> jax.Array:
    """(n, k, c): each lane's grids side by side, skewed."""
    n, m, b = cost_nmb.shape
    q = _streams(b)
    cost_nqmc = cost_nmb.reshape(n, m, b // q, q).transpose(0, 3, 1, 2)
    return grid.skewed(cost_nqmc.reshape(n, q * m, b // q))


def _ends(m: int, n_b: jax.Array, m_b: jax.Array) -> tuple:
    """Where each pair's last cell lies in (k, n, c)."""
    q = _streams(len(n_b))
    lane_b, turn_b = jnp.divmod(jnp.arange(len(n_b)), q)
    return turn_b * m + n_b + m_b - 2, n_b - 1, lane_b


def _table(
    cost_nmb: jax.Array, *, keep: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """R of the paper's algorithm 1 at gamma 1, (k, n, c).

    keep: whether to return as well, shaped alike, the shares that the cell to the left
      and the one above have in a cell's soft minimum; the diagonal one has the rest.
    """
    cost_nkc = _folded(cost_nmb)
    (n, steps, c), m = cost_nkc.shape, cost_nmb.shape[1]
    nothing, rows_n1 = jnp.zeros((0, c), cost_nmb.dtype), jnp.arange(n)[:, None]
    corner_n1 = jnp.where(rows_n1 == 0, 0.0, BIG).astype(cost_nmb.dtype)

    def step(carry: tuple, k: jax.Array) -> tuple[tuple, tuple]:
        one_nc, two_nc = carry
        first_n1 = (k - rows_n1) % m == 0  # the first column of a grid
        left_nc = jnp.where(first_n1, BIG, one_nc)
        diagonal_nc = jnp.where(first_n1, corner_n1, grid.shifted(two_nc, BIG))
        up_nc = grid.shifted(one_nc, BIG)
        least_nc = jnp.minimum(jnp.minimum(left_nc, up_nc), diagonal_nc)
        left, up, diagonal = (
            jnp.exp(least_nc - r_nc) for r_nc in (left_nc, up_nc, diagonal_nc)
        )
        total = left + up + diagonal
        cost_nc = jax.lax.dynamic_index_in_dim(cost_nkc, k, 1, keepdims=False)
        now_nc = cost_nc + least_nc - jnp.log(total)
        part = 1 / total
        shares = (left * part, up * part) if keep else (nothing, nothing)
        return (now_nc, one_nc), (now_nc, *shares)

    none_nc = jnp.full((n, c), BIG, cost_nmb.dtype)
    return jax.lax.scan(step, (none_nc, none_nc), jnp.arange(steps))[1]


@jax.custom_vjp
def _of_cost(cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array) -> jax.Array:
    """`of_cost` at gamma 1."""
    return _table(cost_nmb, keep=False)[0][_ends(cost_nmb.shape[1], n_b, m_b)]


def _forward(cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array) -> tuple:
    table_knc, *shares = _table(cost_nmb, keep=True)
    ends = _ends(cost_nmb.shape[1], n_b, m_b)
    return table_knc[ends], (*shares, n_b, m_b, cost_nmb[:1, :, :1])


def _backward(saved: tuple, g_b: jax.Array) -> tuple:
    """E of algorithm 2, from the last anti-diagonal to the first.

    A cell hands its E on to the three cells before it by their shares, which sum to 1,
    so that rounding loses no mass.
    """
    left_knc, up_knc, n_b, m_b, row_1m1 = saved
    (_, n, c), m, b = left_knc.shape, row_1m1.shape[1], len(n_b)
    start_knc = jnp.zeros_like(left_knc).at[_ends(m, n_b, m_b)].set(g_b)

    def above(e_nc: jax.Array) -> jax.Array:  # row i + 1 at row i
        return jnp.pad(e_nc[1:], ((0, 1), (0, 0)))

    def step(carry: tuple, at: tuple) -> tuple[tuple, jax.Array]:
        e_nc, next_nc = carry
        start_nc, left_nc, up_nc = at
        e_nc = e_nc + start_nc
        left_nc, up_nc = left_nc * e_nc, up_nc * e_nc
        to_one_nc = next_nc + left_nc + above(up_nc)
        return (to_one_nc, above(e_nc - left_nc - up_nc)), e_nc

    nothing = (jnp.zeros((n, c), left_knc.dtype),) * 2
    rows = start_knc, left_knc, up_knc
    e_knc = jax.lax.scan(step, nothing, rows, reverse=True)[1]
    e_nqmc = grid.straight(e_knc.transpose(1, 0, 2)).reshape(n, b // c, m, c)
    none = (np.zeros(a.shape, jax.dtypes.float0) for a in (n_b, m_b))
    return e_nqmc.transpose(0, 2, 3, 1).reshape(n, m, b), *none


_of_cost.defvjp(_forward, _backward)


def of_cost(
    cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Soft-DTW of a grid of costs (n, m, b) whose pairs have n_b and m_b frames: (b,).

    The gradient in the costs is the expected alignment E. It needs three tables of
    n (n + m) numbers a pair beside them, or less where lanes are shared.
    """
    return gamma * _of_cost(cost_nmb / gamma, n_b, m_b)


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
