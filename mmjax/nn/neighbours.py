"""What lies around a place of an image grid and comes before it, row by row.

Legend: b rows, g side of the grid, n = g*g places, m of them given, o neighbours, w
width, v ids.
"""

import jax
import jax.numpy as jnp
import numpy as np

# (rows, columns) from a place to its neighbours; the one at its left is not among
# them, being what an autoregressive model reads there anyway.
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (-2, 0), (0, -2))


def table(grid: int) -> np.ndarray:
    """int32 (n, o): around place j + 1, which token j predicts; n where none is."""
    n = grid * grid
    out = np.full((n, len(OFFSETS)), n, np.int32)
    row_n, column_n = np.divmod(np.arange(1, n), grid)
    for o, (down, right) in enumerate(OFFSETS):
        r, c = row_n + down, column_n + right
        inside = (r >= 0) & (r < grid) & (c >= 0) & (c < grid)
        out[:-1, o] = np.where(inside, r * grid + c, n)
    return out


def gather(x_bmw: jax.Array, grid: int) -> jax.Array:
    """The neighbours' vectors side by side, (b, m, o*w), zeros where none is.

    Shifts of the padded grid: a gather's gradient would be a scatter, slow on CPU.
    """
    b, m, w = x_bmw.shape
    n = grid * grid
    x_bggw = jnp.pad(x_bmw, ((0, 0), (0, n - m), (0, 0))).reshape(b, grid, grid, w)
    around = jnp.pad(x_bggw, ((0, 0), (2, 0), (2, 1), (0, 0)))
    parts = [
        around[:, 2 + down : 2 + down + grid, 2 + right : 2 + right + grid]
        for down, right in OFFSETS
    ]
    x_bnw = jnp.concatenate(parts, axis=-1).reshape(b, n, len(OFFSETS) * w)
    return jnp.pad(x_bnw[:, 1:], ((0, 0), (0, 1), (0, 0)))[:, :m]


def lookup(
    table_ovw: jax.Array, ids_bn: jax.Array, index: jax.Array, grid: int
) -> jax.Array:
    """Sum of the rows of token `index`'s neighbours in a table each, (b, w)."""
    places_o = jnp.asarray(table(grid))[index]
    ids_bo = ids_bn[:, jnp.minimum(places_o, grid * grid - 1)]
    x_bow = table_ovw[jnp.arange(len(OFFSETS)), ids_bo]
    return jnp.where((places_o < grid * grid)[:, None], x_bow, 0).sum(1)
