"""Noise schedules against the papers' formulas, and what predictions stand for."""

import numpy as np
import pytest

from mmjax.sampling import noise
from mmjax.sampling.noise import Schedule


def alpha_bar(**keys):
    return Schedule(**keys).table[0] ** 2


def test_linear_is_that_of_ddpm():
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(alpha_bar(kind="linear"), kept, rtol=1e-12)
    assert kept[-1] == pytest.approx(4.036e-5, rel=1e-3)


def test_scaled_linear_is_that_of_stable_diffusion():
    kept = alpha_bar(kind="scaled_linear", start=0.00085, end=0.012)
    # as diffusers' DDIMScheduler prints them
    assert kept[0] == pytest.approx(0.99915, abs=1e-6)
    assert kept[-1] == pytest.approx(0.0046601, abs=1e-6)


def test_cosine_is_that_of_improved_ddpm():
    kept = alpha_bar(kind="cosine")
    f = np.cos((np.array([0, 1, 500, 998]) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(kept[[0, 499, 997]], f[1:] / f[0], rtol=1e-9)
    assert kept[-1] == pytest.approx(kept[-2] * 0.001)  # the largest beta is 0.999


def test_flow_is_a_straight_line():
    alpha, sigma = Schedule(kind="flow", steps=10).table
    np.testing.assert_allclose(alpha + sigma, 1)
    assert (alpha[-1], sigma[0]) == (0, 0.1)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_levels_are_the_table_at_steps_and_between_them(kind):
    schedule = Schedule(kind=kind, steps=20)
    alpha, sigma = schedule.levels(np.arange(20.0))
    np.testing.assert_allclose(alpha, schedule.table[0], atol=1e-6)
    np.testing.assert_allclose(sigma, schedule.table[1], atol=1e-6)
    alpha, sigma = schedule.levels(np.arange(0, 19, 0.25))
    size = alpha + sigma if kind == "flow" else alpha**2 + sigma**2
    np.testing.assert_allclose(size, 1, atol=1e-6)
    assert (np.diff(alpha) < 1e-7).all()


def test_zero_terminal_keeps_the_first_step_and_ends_in_noise():
    plain = Schedule(kind="scaled_linear", start=0.00085, end=0.012)
    moved = Schedule(kind="scaled_linear", start=0.00085, end=0.012, zero_terminal=True)
    assert moved.table[0][0] == pytest.approx(plain.table[0][0])
    assert moved.ends_in_noise and not plain.ends_in_noise
    assert Schedule(kind="flow").ends_in_noise


@pytest.mark.parametrize("form", noise.TARGETS)
@pytest.mark.parametrize("kind", noise.KINDS)
def test_a_target_gives_back_data_and_noise(form, kind):
    rng = np.random.default_rng(0)
    x_0, eps = rng.normal(size=(2, 3, 4))
    alpha, sigma = (x[7] for x in Schedule(kind=kind, steps=10).table)
    x_t = noise.noised(x_0, eps, alpha, sigma)
    given = noise.TARGETS[form](x_0, eps, alpha, sigma)
    back = noise.estimates(form, given, x_t, alpha, sigma)
    np.testing.assert_allclose(back, (x_0, eps), atol=1e-9)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"kind": "square"}, "'square'.*flow"),
        ({"steps": 1}, "is 1.*2 or more"),
        ({"start": 0.5, "end": 0.1}, "0.5.*0.1"),
    ],
)
def test_a_schedule_that_is_none(keys, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**keys)
