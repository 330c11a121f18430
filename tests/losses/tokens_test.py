"""Token losses against numpy, and the values they must have."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses import tokens


def rows(b: int = 3, n: int = 4, v: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 3 * rng.normal(size=(b, n, v)), rng.integers(0, v, (b, n))


def test_nll_and_its_gradient_against_numpy():
    logits, targets = rows()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = -np.log(np.take_along_axis(p, targets[..., None], -1))[..., 0]
    given = jnp.asarray(logits, jnp.float32), jnp.asarray(targets)
    np.testing.assert_allclose(tokens.nll(*given), want, rtol=1e-5)
    grad = jax.grad(lambda x: tokens.nll(x, given[1]).sum())(given[0])
    np.testing.assert_allclose(grad, p - np.eye(7)[targets], atol=1e-6)


def test_equal_logits_cost_log_of_the_vocabulary():
    _, targets = rows(v=5)
    nll = tokens.nll(jnp.full((3, 4, 5), 1e4), jnp.asarray(targets))
    np.testing.assert_allclose(nll, math.log(5), rtol=1e-3)


def test_half_precision_logits_are_summed_in_single():
    logits, targets = rows(v=1000)
    half = jnp.asarray(logits, jnp.bfloat16)
    got = tokens.nll(half, jnp.asarray(targets))
    want = tokens.nll(half.astype(jnp.float32), jnp.asarray(targets))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)


def test_row_mean_counts_what_counts():
    values = jnp.asarray([[1.0, 2.0, 9.0], [5.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    counted = jnp.asarray([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_allclose(tokens.row_mean(values, counted), [1.5, 5.0, 0.0])


def test_weights_of_the_paper():
    np.testing.assert_allclose(tokens.text_and_image(8.0, 16.0), 1.0 + 14.0)
    np.testing.assert_allclose(tokens.text_and_image(8.0, 16.0, text_weight=0), 16.0)
