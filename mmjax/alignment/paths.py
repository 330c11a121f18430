"""Dynamic time warping: the cheapest monotone path through a grid of costs.

Sakoe and Chiba 1978: steps (1, 0), (0, 1) and (1, 1), each cell at its cost. Legend: b
pairs, n and m frames, k anti-diagonals, l steps of the longest path (n + m - 1).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.alignment import grid
from mmjax.alignment.grid import BIG, Band


@functools.partial(jax.jit, static_argnames=("band", "open_begin", "open_end", "keep"))
def accumulate(
    cost_nmb: jax.Array,
    n_b: jax.Array,
    m_b: jax.Array,
    *,
    band: Band | None = None,
    open_begin: bool = False,
    open_end: bool = False,
    keep: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Costs of the best paths.

    Args:
      cost_nmb: of a step on cell (i, j), at least 0 where an end is open.
      n_b, m_b: int (b,) frames that count; the rest is padding.
      open_begin, open_end: whether the path may begin, or end, at any frame of the
        second sequence. It covers the first one whole.
      keep: whether to return the table.

    Returns:
      float (b,) costs, BIG or more where no path stays within the band; int (b,)
      the last column; and the table of costs up to each cell, (k, n, b), or empty.
    """
    cost_nkb = grid.skewed(grid.inside(cost_nmb, n_b, m_b, band))
    n, steps, b = cost_nkb.shape

    def step(carry: tuple, k: jax.Array) -> tuple[tuple, jax.Array]:
        one_nb, two_nb, best_b, column_b = carry
        fresh = 0.0 if open_begin else jnp.where(k == 0, 0.0, BIG)
        before_nb = jnp.minimum(one_nb, grid.shifted(one_nb, BIG))
        before_nb = jnp.minimum(before_nb, grid.shifted(two_nb, fresh))
        now_nb = before_nb + jax.lax.dynamic_index_in_dim(
            cost_nkb, k, 1, keepdims=False
        )
        j_b = k - (n_b - 1)
        last_b = jnp.take_along_axis(now_nb, n_b[None] - 1, 0)[0]
        here_b = (j_b >= 0) & (j_b < m_b) if open_end else j_b == m_b - 1
        here_b &= last_b < best_b
        best_b = jnp.where(here_b, last_b, best_b)
        column_b = jnp.where(here_b, j_b, column_b)
        kept = now_nb if keep else jnp.zeros((0, b))
        return (now_nb, one_nb, best_b, column_b), kept

    none_nb = jnp.full((n, b), BIG, cost_nmb.dtype)
    start = none_nb, none_nb, jnp.full((b,), jnp.inf, cost_nmb.dtype), m_b - 1
    (*_, best_b, column_b), table_knb = jax.lax.scan(step, start, jnp.arange(steps))
    return best_b, column_b, table_knb


@functools.partial(jax.jit, static_argnames="open_begin")
def backtrack(
    table_knb: jax.Array, n_b: jax.Array, column_b: jax.Array, *, open_begin: bool
) -> tuple[jax.Array, jax.Array]:
    """The paths that end in row n_b - 1 at `column_b`; at a tie the diagonal step.

    Returns:
      int32 (b, l, 2) cells from the last to the first, and how many there are (b,).
    """
    steps, _, b = table_knb.shape
    pairs_b = jnp.arange(b)

    def at(i_b: jax.Array, j_b: jax.Array) -> jax.Array:
        value_b = table_knb[i_b + j_b, i_b, pairs_b]
        return jnp.where((i_b < 0) | (j_b < 0), jnp.inf, value_b)

    def step(carry: tuple, _: None) -> tuple[tuple, tuple]:
        i_b, j_b, on_b = carry
        rows_3b = jnp.stack([i_b - 1, i_b - 1, i_b])
        columns_3b = jnp.stack([j_b - 1, j_b, j_b - 1])
        best_b = jnp.argmin(jax.vmap(at)(rows_3b, columns_3b), axis=0)
        first_b = (i_b == 0) & (open_begin | (j_b == 0))
        next_b = on_b & ~first_b
        to_i_b = jnp.where(next_b, rows_3b[best_b, pairs_b], i_b)
        to_j_b = jnp.where(next_b, columns_3b[best_b, pairs_b], j_b)
        return (to_i_b, to_j_b, next_b), (jnp.stack([i_b, j_b], -1), on_b)

    start = n_b - 1, column_b, jnp.ones((b,), bool)
    _, (cells_lb2, on_lb) = jax.lax.scan(step, start, None, length=steps)
    return cells_lb2.transpose(1, 0, 2), on_lb.sum(0)


@functools.partial(jax.jit, static_argnames=("band", "open_begin", "open_end"))
def cost(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_b: jax.Array | None = None,
    m_b: jax.Array | None = None,
    **options: Any,
) -> jax.Array:
    """DTW of batches, (b,), without paths: for use inside compiled code.

    Args:
      x_bnd, y_bmd: sequences, padded to one length with any finite numbers.
      n_b, m_b: int (b,) frames that count; None: all.
      options: band, open_begin, open_end, of `accumulate`.
    """
    rows = x_bnd, y_bmd, grid.lengths(x_bnd, n_b), grid.lengths(y_bmd, m_b)

    def part(rows: tuple) -> jax.Array:
        cost_nmb = grid.squared_distances(*rows[:2])
        return accumulate(cost_nmb, *rows[2:], **options)[0]

    return grid.in_parts(part, rows)
