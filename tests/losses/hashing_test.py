"""DCMH's loss against numpy, and where its parts are at their best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import hashing


def test_the_parts_are_their_formulas():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4)).astype(np.float32)
    similar = np.eye(6, dtype=bool) | (rng.random((6, 6)) < 0.3)
    theta = a @ b.T / 2
    cost = -(similar * theta - np.log1p(np.exp(theta)))
    want = (cost[similar].mean() + cost[~similar].mean()) / 2
    got = hashing.pairwise_likelihood(a, b, similar)
    assert float(got) == pytest.approx(want, abs=1e-5)
    bits = np.where(a + b > 0, 1, -1)
    want = np.mean((a - bits) ** 2 + (b - bits) ** 2)
    assert float(hashing.quantisation(a, b)) == pytest.approx(want, abs=1e-5)
    want = np.mean(a.mean(0) ** 2 + b.mean(0) ** 2)
    assert float(hashing.imbalance(a, b)) == pytest.approx(want, abs=1e-6)


def test_ends():
    corner = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    assert hashing.quantisation(corner, corner) == 0
    assert hashing.imbalance(corner, corner) == 0
    assert hashing.imbalance(corner, jnp.ones((2, 2))) == 1
    zero = jnp.zeros((3, 2))
    some = jnp.eye(3, dtype=bool)
    assert hashing.pairwise_likelihood(zero, zero, some) == pytest.approx(np.log(2))
    # rows of one class alone have no dissimilar pair, and a finite gradient
    grad = jax.grad(lambda x: hashing.pairwise_likelihood(x, x, jnp.ones((3, 3), bool)))
    assert np.isfinite(grad(zero + 0.1)).all()
