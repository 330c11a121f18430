"""Weights of a denoiser's error: one loss, whatever the network predicts."""

import jax
import numpy as np
import pytest

from mmjax.losses import diffusion as losses
from mmjax.sampling import noise
from mmjax.sampling.noise import Schedule


@pytest.mark.parametrize("kind", [k for k in losses.WEIGHTS if k != "none"])
@pytest.mark.parametrize("schedule", ["cosine", "flow"])
def test_the_forms_give_one_loss(kind, schedule):
    rng = np.random.default_rng(0)
    x_0, eps, guess = rng.normal(size=(3, 4, 5))
    alpha_b, sigma_b = (x[[2, 9, 15, 17]] for x in Schedule(schedule, steps=20).table)
    alpha, sigma = alpha_b[:, None], sigma_b[:, None]
    x_t = noise.noised(x_0, eps, alpha, sigma)
    implied = (x_t - alpha * guess) / sigma
    found = []
    for form, target in noise.TARGETS.items():
        given = target(guess, implied, alpha, sigma)
        wanted = target(x_0, eps, alpha, sigma)
        weight_b = losses.weight(kind, form, alpha_b, sigma_b, gamma=5.0)
        found.append(weight_b * losses.square_error(given, wanted))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-4)


def test_weights_are_the_papers():
    alpha_b = np.sqrt(np.array([0.99, 0.5, 0.1]))
    sigma_b = np.sqrt(1 - alpha_b**2)
    snr_b = np.array([99.0, 1.0, 1 / 9])
    weigh = lambda kind, form, gamma: losses.weight(  # noqa: E731
        kind, form, alpha_b, sigma_b, gamma=gamma
    )
    # Hang et al. 2023, section 3.4: min(snr, 5) of x_0, / snr of eps, / (snr + 1) of v
    least = np.minimum(snr_b, 5)
    np.testing.assert_allclose(weigh("min_snr", "x0", 5.0), least, rtol=1e-5)
    np.testing.assert_allclose(weigh("min_snr", "eps", 5.0), least / snr_b, rtol=1e-5)
    np.testing.assert_allclose(
        weigh("min_snr", "v", 5.0), least / (snr_b + 1), rtol=1e-5
    )
    np.testing.assert_allclose(weigh("p2", "eps", 1.0), 1 / (1 + snr_b), rtol=1e-5)
    np.testing.assert_array_equal(weigh("none", "eps", 1.0), 1)


def test_times_follow_their_distribution():
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = lambda *how: np.asarray(  # noqa: E731
        jax.vmap(lambda key: losses.time(key, *how, 1000))(keys)
    )
    even = draw("uniform", 0.0)
    assert even.min() == 0 and even.max() == 999 and (even == even.round()).all()
    np.testing.assert_allclose(np.quantile(even, 0.25), 250, atol=25)
    for mean in (0.0, 0.5):  # the median, and where a standard deviation more lies
        late = draw("logit_normal", mean) / 999
        for quantile, z in ((0.5, 0.0), (0.8413, 1.0)):
            want = 1 / (1 + np.exp(-mean - z))
            np.testing.assert_allclose(np.quantile(late, quantile), want, atol=0.02)
