"""Pooling and tiling by reshape."""

import jax.numpy as jnp
import numpy as np

from mmjax.nn.conv import avg_pool, space_to_depth


def test_avg_pool_drops_what_is_left_over():
    x = jnp.arange(2 * 5 * 4 * 3.0).reshape(2, 5, 4, 3)
    got = avg_pool(x, 2)
    assert got.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(got[1, 1, 0], x[1, 2:4, 0:2].mean((0, 1)))
    assert avg_pool(x, 1) is x


def test_space_to_depth_keeps_tiles_whole():
    x = jnp.arange(1 * 4 * 6 * 3.0).reshape(1, 4, 6, 3)
    got = space_to_depth(x, 2)
    assert got.shape == (1, 2, 3, 12)
    np.testing.assert_array_equal(got[0, 1, 2], x[0, 2:4, 4:6].reshape(-1))
