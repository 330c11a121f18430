"""Soft-DTW: the soft minimum of the costs of all monotone paths, and its gradient.

Cuturi and Blondel 2017: softmin_g(a) = -g log sum exp(-a / g). Legend: b pairs, n and m
frames, d columns, k anti-diagonals.
"""

import functools

import jax
import jax.numpy as jnp

from mmjax.alignment import grid
from mmjax.alignment.grid import BIG, Band


def _before(
    one_nb: jax.Array, two_nb: jax.Array, k: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What stands left of, above and diagonally before the cells of anti-diagonal k."""
    fresh = jnp.where(k == 0, 0.0, BIG).astype(one_nb.dtype)
    return one_nb, grid.shifted(one_nb, BIG), grid.shifted(two_nb, fresh)


def _table(cost_nmb: jax.Array, gamma: jax.Array) -> jax.Array:
    """R of the paper's algorithm 1 in anti-diagonals, (k, n, b)."""
    cost_nkb = grid.skewed(cost_nmb)
    n, steps, b = cost_nkb.shape

    def step(carry: tuple, k: jax.Array) -> tuple[tuple, jax.Array]:
        one_nb, two_nb = carry
        three = _before(one_nb, two_nb, k)
        least_nb = functools.reduce(jnp.minimum, three)
        total_nb = sum(jnp.exp((least_nb - r_nb) / gamma) for r_nb in three)
        cost_nb = jax.lax.dynamic_index_in_dim(cost_nkb, k, 1, keepdims=False)
        now_nb = cost_nb + least_nb - gamma * jnp.log(total_nb)
        return (now_nb, one_nb), now_nb

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
    one table of n (n + m) numbers a pair beside the costs.
    """
    return _read(_table(cost_nmb, gamma), n_b, m_b)


def _forward(cost_nmb, n_b, m_b, gamma):  # noqa: ANN001, ANN202
    table_knb = _table(cost_nmb, gamma)
    return _read(table_knb, n_b, m_b), (table_knb, n_b, m_b, gamma)


def _backward(saved: tuple, g_b: jax.Array) -> tuple:
    """E from the last anti-diagonal to the first.

    A cell hands its E on to the three cells before it by their shares in its soft
    minimum. The shares sum to 1, so that rounding loses no mass.
    """
    table_knb, n_b, m_b, gamma = saved
    steps, n, b = table_knb.shape
    rows_n1 = jnp.arange(n)[:, None]
    nothing_nb = jnp.zeros((n, b), table_knb.dtype)

    def above(e_nb: jax.Array) -> jax.Array:  # row i + 1 at row i
        return jnp.pad(e_nb[1:], ((0, 1), (0, 0)))

    def step(carry: tuple, k: jax.Array) -> tuple[tuple, jax.Array]:
        e_nb, next_nb = carry
        e_nb += jnp.where((k == n_b + m_b - 2) & (rows_n1 == n_b - 1), g_b, 0.0)

        def row(back: int) -> jax.Array:
            there_nb = table_knb[jnp.maximum(k - back, 0)]
            return jnp.where(k >= back, there_nb, BIG)

        three = _before(row(1), row(2), k)
        least_nb = functools.reduce(jnp.minimum, three)
        left, up, diagonal = (jnp.exp((least_nb - r_nb) / gamma) for r_nb in three)
        share_nb = e_nb / (left + up + diagonal)
        one_nb = next_nb + share_nb * left + above(share_nb * up)
        return (one_nb, above(share_nb * diagonal)), e_nb

    order = jnp.arange(steps), (nothing_nb, nothing_nb)
    _, e_knb = jax.lax.scan(step, order[1], order[0], reverse=True)
    zeros = (jnp.zeros(a.shape, jax.dtypes.float0) for a in (n_b, m_b))
    e_nmb = grid.straight(e_knb.transpose(1, 0, 2))
    return e_nmb, *zeros, jnp.zeros_like(gamma)


of_cost.defvjp(_forward, _backward)


def value(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_b: jax.Array | None = None,
    m_b: jax.Array | None = None,
    *,
    gamma: float = 1.0,
    band: Band | None = None,
) -> jax.Array:
    """Soft-DTW of squared distances, (b,), in units of their square."""
    cost_nmb = grid.squared_distances(x_bnd, y_bmd)
    n_b, m_b = grid.ends(n_b, m_b, cost_nmb)
    cost_nmb = grid.inside(cost_nmb, n_b, m_b, band)
    return of_cost(cost_nmb, n_b, m_b, jnp.asarray(gamma, cost_nmb.dtype))


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
