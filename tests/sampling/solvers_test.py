"""Solvers on Gaussian data, whose best denoiser and whose paths are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.sampling import diffusion, solvers
from mmjax.sampling.diffusion import Sampling
from mmjax.sampling.noise import Schedule
from mmjax.sampling.solvers import Levels

MEAN = np.array([1.0, -0.5])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])


def denoiser(levels):
    """E[x_0 | x_t] and the eps that goes with it, at every level."""
    columns = [jnp.asarray(x) for x in levels]

    def denoise(x_bd, i):
        alpha, sigma = columns[1][i], columns[2][i]
        total = alpha**2 * COV + sigma**2 * jnp.eye(2)
        gain = alpha * jnp.linalg.solve(total, jnp.asarray(COV)).T
        x_0 = MEAN + (x_bd - alpha * MEAN) @ gain.T
        return x_0, (x_bd - alpha * x_0) / sigma

    return denoise


def drawn(name, levels, *, rows=40_000, **more):
    keys = jax.random.split(jax.random.key(0), len(levels.time) + 1)
    x = levels.sigma[0] * jax.random.normal(keys[-1], (rows, 2))
    noise = lambda i: jax.random.normal(keys[i], (rows, 2))  # noqa: E731
    return solvers.solve(name, denoiser(levels), x, levels, noise=noise, **more)


def levels_of(kind, **keys):
    end = {"linear": 0.02, "scaled_linear": 0.012}.get(kind, 0.02)
    return diffusion.levels(Schedule(kind=kind, end=end), Sampling(**keys))


PAIRS = [(n, k) for n in solvers.SOLVERS for k in ("linear", "cosine", "flow")]
PAIRS.remove(("plms", "flow"))  # it needs some data to begin with


@pytest.mark.parametrize("name, kind", PAIRS)
def test_gaussian_data_come_back_with_mean_and_covariance(name, kind):
    n = {"ddim": 200, "euler": 200, "ddpm": 500, "dpm_solver": 50, "heun": 50}
    levels = levels_of(kind, steps=n.get(name, 100))
    x = np.asarray(drawn(name, levels))
    deviation = COV.diagonal() ** 0.5
    # three standard errors of the draw, and what is left of the size of the steps
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.015 + 0.01 * deviation.max())
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.02)


def affine(name, levels):
    """A and c of x -> A x + c, what a solver makes of Gaussian data."""
    x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    c, *columns = np.asarray(solvers.solve(name, denoiser(levels), x, levels))
    return np.array(columns).T - c[:, None], c


def by_log_snr(n, low=-4.0, high=3.0):
    """n equal steps of half the log SNR."""
    half = np.linspace(low, high, n + 1)
    alpha = np.sqrt(1 / (1 + np.exp(-2 * half)))
    return Levels(np.arange(n, 0, -1.0), alpha, np.sqrt(1 - alpha**2))


def exact(levels):
    """The flow of the probability: covariances' roots along their eigenvectors."""
    values, vectors = np.linalg.eigh(COV)

    def root(i):
        return np.sqrt(levels.alpha[i] ** 2 * values + levels.sigma[i] ** 2)

    a = vectors @ np.diag(root(-1) / root(0)) @ vectors.T
    return a, levels.alpha[-1] * MEAN - a @ (levels.alpha[0] * MEAN)


@pytest.mark.parametrize(
    "name, order", [("ddim", 1), ("dpm_solver", 2), ("heun", 2), ("plms", 2)]
)
def test_the_order_of_convergence(name, order):
    with jax.enable_x64(True):
        errors = []
        for n in (40, 80, 160):
            levels = by_log_snr(n)
            pairs = zip(affine(name, levels), exact(levels), strict=True)
            errors.append(max(np.abs(x - y).max() for x, y in pairs))
    slopes = -np.diff(np.log2(errors))
    assert (slopes > order - 0.2).all(), (slopes, errors)
    if name in ("ddim", "dpm_solver"):
        assert (slopes < order + 0.4).all(), (slopes, errors)


def test_ancestral_steps_are_those_of_ddpm():
    """Ho et al. 2020, eq. 6 and 7, from the betas."""
    schedule = Schedule(kind="linear", steps=8, start=0.01, end=0.3)
    levels = diffusion.levels(schedule, Sampling(sampler="ddpm", steps=8, clean=True))
    beta_n = np.linspace(0.01, 0.3, 8)[::-1]
    kept_m = np.append(np.cumprod(1 - np.linspace(0.01, 0.3, 8))[::-1], 1.0)
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(5, 2)), rng.normal(size=(8, 5, 2))
    z_n = jnp.asarray(z)
    got = solvers.solve(
        "ddpm", denoiser(levels), jnp.asarray(x), levels, noise=lambda i: z_n[i]
    )
    denoise = denoiser(levels)
    for i in range(8):
        x_0 = np.asarray(denoise(x, i)[0])
        (now, then), beta = kept_m[i : i + 2], beta_n[i]
        mean = np.sqrt(then) * beta / (1 - now) * x_0
        mean = mean + np.sqrt(1 - beta) * (1 - then) / (1 - now) * x
        x = mean + np.sqrt((1 - then) / (1 - now) * beta) * z[i]
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_inversion_finds_the_noise_of_an_image():
    x = jnp.asarray(np.random.default_rng(0).multivariate_normal(MEAN, COV, 100))
    off = []
    for steps in (250, 500):
        levels = levels_of("cosine", steps=steps)
        noise = solvers.invert(denoiser(levels), x, levels)
        back = solvers.solve("ddim", denoiser(levels), noise, levels)
        off.append(np.abs(back - x).max())
        assert np.abs(noise - x).max() > 0.5
    assert off[1] < 0.02 and off[1] < 0.6 * off[0], off


def test_what_follows_a_step_is_gone_on_from():
    levels = levels_of("cosine", steps=10)
    held = jnp.zeros((4, 2)).at[:, 0].set(3.0)
    keep = lambda x, i: jnp.where(jnp.array([True, False]), held, x)  # noqa: E731
    for name in solvers.SOLVERS:
        x = drawn(name, levels, rows=4, after=keep)
        np.testing.assert_array_equal(x[:, 0], 3.0)


def test_plms_needs_some_data_to_begin_with():
    with pytest.raises(UserError, match="plms.*ddim"):
        drawn("plms", levels_of("flow", steps=5), rows=2)


def test_where_the_samplers_stop():
    schedule = Schedule(kind="scaled_linear", start=0.00085, end=0.012)
    levels = functools.partial(diffusion.levels, schedule)
    trailing = levels(Sampling(steps=5)).time
    np.testing.assert_array_equal(trailing, [999, 799, 599, 399, 199])
    sd = levels(Sampling(steps=50, spacing="leading", offset=1, clean=False))
    np.testing.assert_array_equal(sd.time[[0, -1]], [981, 1])
    assert sd.alpha[-1] == schedule.table[0][0]
    spread = levels(Sampling(steps=3, spacing="linspace"))
    np.testing.assert_array_equal(spread.time, [999, 500, 0])
    assert (spread.alpha[-1], spread.sigma[-1]) == (1, 0)
    part = diffusion.last(sd, 0.3)
    assert len(part.time) == 15 and part.time[-1] == 1 and len(part.alpha) == 16


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"sampler": "magic"}, "'magic'.*dpm_solver"),
        ({"steps": 0}, "is 0"),
        ({"guidance": float("nan")}, "nan"),
        ({"eta": 0.5}, "0.5.*dpm_solver.*ddim"),
        ({"strength": 0.0}, "0.0.*above 0"),
        ({"clip": -1.0}, "-1.0"),
    ],
)
def test_options_that_are_none(keys, words):
    with pytest.raises(ValueError, match=words):
        Sampling(**keys)
