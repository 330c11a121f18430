"""The terms of VQ-VAE's loss: values by hand, and which way their gradients go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import quantize as losses


def pair():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2, 3, 4))), jnp.asarray(
        rng.normal(size=(2, 3, 4))
    )


@pytest.mark.parametrize("term, moved", [(losses.commitment, 0), (losses.codebook, 1)])
def test_a_mean_square_that_moves_one_side(term, moved):
    z, e = pair()
    square = np.square(np.asarray(z, np.float64) - np.asarray(e, np.float64))
    assert term(z, e) == pytest.approx(square.mean(), rel=1e-6)
    grads = jax.grad(term, argnums=(0, 1))(z, e)
    assert not np.any(grads[1 - moved])
    sign = 1 if moved == 0 else -1
    want = sign * 2 * np.asarray(z - e) / z.size
    np.testing.assert_allclose(grads[moved], want, atol=1e-6)


def test_edges_are_differences_of_neighbours():
    off = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    down = [
        (off[b, i + 1, j] - off[b, i, j]) ** 2
        for b in (0, 1)
        for i in range(3)
        for j in range(5)
    ]
    right = [
        (off[b, i, j + 1] - off[b, i, j]) ** 2
        for b in (0, 1)
        for i in range(4)
        for j in range(4)
    ]
    want = np.mean(down) + np.mean(right)
    assert losses.edges(jnp.asarray(off)) == pytest.approx(want, rel=1e-5)
    assert losses.edges(jnp.full((1, 4, 4, 3), 7.0)) == 0


def test_perplexity_and_use():
    assert losses.perplexity(jnp.full(8, 0.25)) == pytest.approx(8, rel=1e-6)
    one = jnp.array([0.0, 3.0, 0.0, 0.0])
    assert losses.perplexity(one) == pytest.approx(1)
    assert losses.used(one) == 0.25
    counts = np.array([5.0, 1.0, 0.0, 2.0])
    p = counts[counts > 0] / 8
    assert losses.perplexity(jnp.asarray(counts)) == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-6
    )


def test_psnr():
    assert losses.psnr(jnp.asarray(0.01)) == pytest.approx(20, abs=1e-4)
    assert losses.psnr(jnp.asarray(1.0)) == pytest.approx(0)
    assert losses.psnr(jnp.asarray(0.0)) == pytest.approx(100, abs=1e-3)
