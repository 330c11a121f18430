"""The pixel's distribution: a density, in numpy's numbers, and its change of scale."""

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from mmjax.nn import logit_laplace


def test_nll_matches_the_paper_in_numpy():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.9, (4, 6, 6, 3))
    mean, log_scale = rng.normal(size=(2, 4, 6, 6, 3))
    b = np.exp(log_scale)
    density = np.exp(-np.abs(scipy.special.logit(x) - mean) / b) / (2 * b * x * (1 - x))
    got = jax.jit(logit_laplace.nll)(x, mean, log_scale)
    np.testing.assert_allclose(got, -np.log(density), rtol=1e-5, atol=1e-5)


def test_nll_is_laplaces_of_the_logit_with_its_jacobian():
    x, mean, log_scale = 0.3, -0.4, 0.2
    laplace = scipy.stats.laplace(mean, np.exp(log_scale))
    wanted = -laplace.logpdf(scipy.special.logit(x)) + np.log(x * (1 - x))
    got = logit_laplace.nll(*map(np.float32, (x, mean, log_scale)))
    assert got == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("mean, log_scale", [(0.0, 0.0), (1.5, -2.0), (-2.0, 0.5)])
def test_the_density_integrates_to_one(mean, log_scale):
    # in logits, where the peak is as wide as b; dx = x (1 - x) dlogit
    t = mean + np.exp(log_scale) * np.linspace(-40, 40, 400_001)
    keep = np.abs(t) < 15  # beyond, x rounds to 0 or 1
    x = scipy.special.expit(t[keep])
    nll = logit_laplace.nll(np.float32(x), np.float32(mean), np.float32(log_scale))
    density = np.exp(-np.asarray(nll, np.float64)) * x * (1 - x)
    assert scipy.integrate.trapezoid(density, t[keep]) == pytest.approx(1.0, abs=1e-3)


def test_mapping_is_undone():
    x = np.linspace(0, 1, 256).astype(np.float32)
    mapped = logit_laplace.map_pixels(x)
    assert mapped.min() == pytest.approx(0.1) and mapped.max() == pytest.approx(0.9)
    np.testing.assert_allclose(logit_laplace.unmap_pixels(mapped), x, atol=1e-6)
    outside = logit_laplace.unmap_pixels(np.float32([0.0, 1.0]))
    np.testing.assert_array_equal(outside, [0.0, 1.0])


def test_pixels_are_those_whose_logit_is_the_mean():
    x = np.linspace(0, 1, 256)
    mean = scipy.special.logit(0.1 + 0.8 * x)
    np.testing.assert_allclose(logit_laplace.pixels(np.float32(mean)), x, atol=1e-6)


def test_density_over_unit_pixels_has_their_scale():
    """p(x) = p'(map(x)) |map'(x)|: the mapped density, narrower, stands 0.8 as high."""
    x, mean, log_scale = np.linspace(0, 1, 200_001), 0.3, -1.0
    mapped = logit_laplace.map_pixels(np.float32(x))
    nll = logit_laplace.nll(mapped, np.float32(mean), np.float32(log_scale))
    density = np.exp(-np.asarray(logit_laplace.from_unit(nll, 1), np.float64))
    laplace = scipy.stats.laplace(mean, np.exp(log_scale))
    inside = np.diff(laplace.cdf(scipy.special.logit([0.1, 0.9])))[0]
    mass = scipy.integrate.trapezoid(density, x)
    assert mass == pytest.approx(inside, abs=1e-4)
    assert logit_laplace.from_unit(0.0, 12) == pytest.approx(-12 * np.log(0.8))
