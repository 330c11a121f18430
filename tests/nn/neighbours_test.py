"""Neighbours of a place, against a drawing of the grid."""

import jax.numpy as jnp
import numpy as np

from mmjax.nn import neighbours

GRID, W = 4, 3
N = GRID * GRID


def around(place: int) -> list[int | None]:
    """Token numbers up-left, up, up-right, two up, two left; None outside the grid."""
    grid = np.full((GRID + 2, GRID + 3), -1)
    grid[2:, 2:-1] = np.arange(N).reshape(GRID, GRID)
    r, c = place // GRID + 2, place % GRID + 2
    cells = grid[r - 1, c - 1], grid[r - 1, c], grid[r - 1, c + 1]
    cells += grid[r - 2, c], grid[r, c - 2]
    return [None if cell < 0 else int(cell) for cell in cells]


def test_table_is_the_drawing_and_shows_nothing_that_is_not_drawn_yet():
    for token, row in enumerate(neighbours.table(GRID)[:-1]):
        want = around(token + 1)
        assert [None if i == N else i for i in row] == want
        assert all(i is None or i <= token for i in want)
    assert (neighbours.table(GRID)[-1] == N).all()  # predicts nothing


def test_gather_and_lookup_are_the_table():
    rng = np.random.default_rng(0)
    ids_bn = rng.integers(0, 7, (2, N), dtype=np.int32)
    embedding_vw = rng.normal(size=(7, W)).astype(np.float32)
    kernel_oww = rng.normal(size=(5, W, W)).astype(np.float32)
    x_bnw = embedding_vw[ids_bn]
    for m in (1, 6, N):
        got = np.asarray(neighbours.gather(jnp.asarray(x_bnw[:, :m]), GRID))
        assert got.shape == (2, m, 5 * W)
        for token in range(min(m, N - 1)):
            for o, place in enumerate(around(token + 1)):
                part_bw = got[:, token, o * W : (o + 1) * W]
                np.testing.assert_array_equal(
                    part_bw, 0 if place is None else x_bnw[:, place]
                )
    tables = jnp.asarray(np.einsum("vw,owx->ovx", embedding_vw, kernel_oww))
    whole = got @ kernel_oww.reshape(-1, W)
    for token in range(N):
        np.testing.assert_allclose(
            neighbours.lookup(tables, jnp.asarray(ids_bn), jnp.int32(token), GRID),
            whole[:, token],
            atol=1e-5,
        )
