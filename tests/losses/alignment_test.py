"""Cycle consistency by numpy, and what it is 0 for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import alignment


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def plain(x, y, temperature, spread):
    """Frame by frame."""
    losses, errors = [], []
    place = np.arange(len(x)) / len(x)
    for i, frame in enumerate(x):
        alpha = softmax(-np.square(frame - y).sum(-1) / temperature)
        beta = softmax(-np.square(alpha @ y - x).sum(-1) / temperature)
        mean = beta @ place
        variance = max(beta @ np.square(place - mean), 1e-4)
        off = place[i] - mean
        losses.append(off**2 / variance + spread * np.log(np.sqrt(variance)))
        errors.append(abs(off))
    return np.mean(losses), np.mean(errors)


def test_against_numpy_with_padding():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 9, 3))
    n, m = np.array([7, 5]), np.array([6, 9])
    masks = np.arange(7) < n[:, None], np.arange(9) < m[:, None]
    run = jax.jit(alignment.cycle_back, static_argnames=("temperature", "spread"))
    got = run(*map(jnp.asarray, (x, y, *masks)), temperature=0.7, spread=0.01)
    for row in range(2):
        want = plain(x[row, : n[row]], y[row, : m[row]], 0.7, 0.01)
        assert [float(v[row]) for v in got] == pytest.approx(want, rel=1e-4)

    def total(x, y):
        return run(x, y, *masks, temperature=0.7, spread=0.01)[0].sum()

    grads = jax.jit(jax.grad(total, (0, 1)))(jnp.asarray(x), jnp.asarray(y))
    assert not grads[0][1, 5:].any() and not grads[1][0, 6:].any()
    assert np.abs(grads[1][0, :6]).min() > 0


@jax.jit
def _cycle(x, mask):
    return alignment.cycle_back(x, x, mask, mask, temperature=0.1, spread=0.0)


def test_equal_series_of_unlike_frames_lead_back():
    x = jnp.eye(8)[None] * 4
    mask = jnp.ones((1, 8), bool)
    loss, error = _cycle(x, mask)
    assert float(loss[0]) < 1e-6 and float(error[0]) < 1e-4
    flat = jnp.ones((1, 8, 3))
    _, far = _cycle(flat, mask)
    assert float(far[0]) == pytest.approx(0.25)  # all lead back to the middle


def test_known_places():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1, 5, 3)), rng.normal(size=(1, 6, 3))
    truth = np.array([[0.0, 1.25, 2.0, 3.5, 9.0]])
    masks = np.arange(5)[None] < 4, np.arange(6)[None] < 5
    run = jax.jit(alignment.at_truth, static_argnames="temperature")
    loss, error = run(*map(jnp.asarray, (x, y, *masks, truth)), temperature=0.8)
    near = softmax(-np.square(x[0, :4, None] - y[0, None, :5]).sum(-1) / 0.8)
    log = np.log(near)
    places = [log[0, 0], 0.75 * log[1, 1] + 0.25 * log[1, 2], log[2, 2]]
    places.append(0.5 * (log[3, 3] + log[3, 4]))
    assert float(loss[0]) == pytest.approx(-np.mean(places), rel=1e-4)
    off = np.abs(near @ np.arange(5) - truth[0, :4]).mean()
    assert float(error[0]) == pytest.approx(off, rel=1e-5)
