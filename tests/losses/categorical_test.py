"""Categorical latents: the KL by numpy, and what relaxation means at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mmjax.losses import categorical


def logits(b=3, n=5, v=7, scale=2.0):
    return scale * np.random.default_rng(0).normal(size=(b, n, v)).astype(np.float32)


def test_kl_matches_numpy():
    q = scipy.special.softmax(logits().astype(np.float64), axis=-1)
    wanted = scipy.stats.entropy(q, np.full_like(q, 1 / 7), axis=-1)
    np.testing.assert_allclose(categorical.kl_to_uniform(logits()), wanted, rtol=1e-5)


def test_kl_is_zero_when_even_and_ln_v_when_certain():
    even = categorical.kl_to_uniform(np.full((2, 3, 8), 5.0))
    np.testing.assert_allclose(even, 0.0, atol=1e-6)
    certain = categorical.kl_to_uniform(200.0 * np.eye(8)[None])
    np.testing.assert_allclose(certain, np.log(8), rtol=1e-6)
    gradient = jax.grad(lambda x: categorical.kl_to_uniform(x).sum())
    assert np.isfinite(gradient(jnp.asarray(2000.0 * np.eye(8)[None]))).all()


def test_half_precision_logits_are_taken_up():
    rough = jnp.asarray(logits(), jnp.bfloat16)
    got = categorical.kl_to_uniform(rough)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, categorical.kl_to_uniform(rough.astype(jnp.float32)), rtol=1e-6
    )


def test_noise_is_gumbel_and_a_row_is_its_keys():
    keys = jax.random.split(jax.random.key(0), 4)
    noise = categorical.gumbel(keys, (50, 64))
    found = scipy.stats.kstest(np.asarray(noise).ravel(), scipy.stats.gumbel_r.cdf)
    assert found.pvalue > 0.01
    np.testing.assert_array_equal(categorical.gumbel(keys[2:3], (50, 64))[0], noise[2])


def test_relaxed_sample_is_a_distribution_and_falls_into_the_hard_one():
    keys = jax.random.split(jax.random.key(1), 3)
    noise = categorical.gumbel(keys, (5, 7))
    hard = np.eye(7)[np.asarray(categorical.gumbel_max(logits(), noise))]
    apart = []
    for temperature in (4.0, 1.0, 1 / 16, 1e-3):
        soft = np.asarray(categorical.gumbel_softmax(logits(), noise, temperature))
        np.testing.assert_allclose(soft.sum(-1), 1.0, rtol=1e-5)
        apart.append(np.abs(soft - hard).max())
    assert sorted(apart, reverse=True) == apart
    assert apart[-1] < 1e-6
    assert apart[0] > 0.5


def test_relaxed_sample_matches_numpy():
    keys = jax.random.split(jax.random.key(1), 3)
    noise = np.asarray(categorical.gumbel(keys, (5, 7)))
    wanted = scipy.special.softmax((logits().astype(float) + noise) / 0.7, axis=-1)
    got = categorical.gumbel_softmax(logits(), noise, 0.7)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)


def test_gradient_is_the_softmaxs_own():
    """Not straight-through: d soft / d logits = (diag(soft) - soft soft') / t."""
    noise = np.asarray(categorical.gumbel(jax.random.split(jax.random.key(2), 1), (7,)))
    one, t = logits(b=1, n=1)[0], 0.3
    got = jax.jacobian(lambda x: categorical.gumbel_softmax(x, noise, t))(one)[0, :, 0]
    soft = np.asarray(categorical.gumbel_softmax(one, noise, t), np.float64)[0]
    wanted = (np.diag(soft) - np.outer(soft, soft)) / t
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_hard_samples_follow_the_distribution():
    one = logits(b=1, n=1)[0, 0]
    keys = jax.random.split(jax.random.key(3), 1)
    noise = categorical.gumbel(keys, (20_000, 7))
    drawn = categorical.gumbel_max(np.broadcast_to(one, (1, 20_000, 7)), noise)
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=7)
    expected = scipy.special.softmax(one.astype(float)) * 20_000
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.01
    assert drawn.dtype == jnp.int32


@pytest.mark.parametrize("v", [2, 8192])
def test_even_logits_leave_all_to_the_noise(v):
    keys = jax.random.split(jax.random.key(4), 1)
    noise = categorical.gumbel(keys, (3, v))
    drawn = categorical.gumbel_max(np.zeros((1, 3, v)), noise)
    np.testing.assert_array_equal(drawn, np.asarray(noise).argmax(-1))
