"""Distances of features: by hand, and where features are 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import perceptual


def stages(seed):
    rng = np.random.default_rng(seed)
    return {
        "fine": rng.normal(size=(2, 4, 4, 3)),
        "coarse": rng.normal(size=(2, 1, 1, 5)),
    }


def test_lpips_equation_by_hand():
    a, b = stages(0), stages(1)
    weights = {"fine": np.array([0.5, 0.0, 2.0]), "coarse": np.arange(5.0)}
    for given in (None, weights):
        want = 0.0
        for name in a:
            units = [
                x[name] / np.linalg.norm(x[name], axis=-1)[..., None] for x in (a, b)
            ]
            square = (units[0] - units[1]) ** 2
            square = square * (given[name] if given else 1.0)
            want += np.mean([image.sum(-1).mean() for image in square])
        assert perceptual.distance(a, b, given) == pytest.approx(want, rel=1e-5)


def test_brighter_features_are_no_further_and_gradients_are_finite():
    a = stages(0)
    assert perceptual.distance(a, jax.tree.map(lambda x: 3 * x, a)) < 1e-10
    zero = jax.tree.map(jnp.zeros_like, a)
    grads = jax.grad(perceptual.distance)(zero, a)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
