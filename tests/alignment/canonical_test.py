"""Canonical warping against closed forms, and merging against known clocks."""

import numpy as np
import pytest

from mmjax import alignment
from mmjax.alignment import canonical
from mmjax.errors import UserError
from mmjax.metrics import alignment as metrics


def spiral(frames):
    t = np.sqrt(np.linspace(0, 1, frames)) * 4 * np.pi
    return np.stack([t * np.cos(t), t * np.sin(t)], 1)


@pytest.fixture(scope="module")
def warped():
    """Two warps of a spiral under maps of their own, and the true path."""
    rng = np.random.default_rng(3)
    latent, frames = spiral(120), []
    mixes = [rng.normal(size=(2, 2)) for _ in range(2)]
    for _ in range(2):
        speed = np.cumsum(np.repeat(rng.uniform(0.3, 0.9, 5), 24))
        ticks = np.linspace(speed[0], speed[-1], round(speed[-1]))
        frames.append(np.interp(ticks, speed, np.arange(120)).round().astype(int))
    views = [latent[f] @ mix for f, mix in zip(frames, mixes, strict=True)]
    truth = alignment.dtw(*frames).path
    return views, frames, truth


@pytest.mark.parametrize("init", ["uniform", "pca"])
def test_ctw_undoes_warp_and_map(warped, init):
    views, _, truth = warped
    found = alignment.ctw(*views, init=init, components=2)
    dtw, uniform = alignment.dtw(*views).path, canonical.uniform([*map(len, views)])
    error, plain, none = (
        metrics.path_error(p, truth) for p in (found.path, dtw, uniform)
    )
    assert error < none and error < 0.4 * plain
    assert found.correlations.min() > 0.99 and len(found.changes) > 1
    mapped = [to(view) for to, view in zip(found.maps, views, strict=True)]
    np.testing.assert_allclose(
        np.square(mapped[0][found.path[:, 0]] - mapped[1][found.path[:, 1]]).sum(),
        found.cost,
        rtol=1e-3,
    )


def test_ctw_of_equal_columns_from_dtw_stays_there():
    x = spiral(40)
    found = alignment.ctw(x, x, init="dtw", components=2)
    assert (found.path[:, 0] == found.path[:, 1]).all()
    np.testing.assert_allclose(found.correlations, 1, atol=1e-6)


def test_linear_cca_is_that_of_least_squares():
    """With one column on a side, the correlation is the root of R squared."""
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(200, 3)), rng.normal(size=200)
    y = (x @ [1.0, -2.0, 0.5] + noise)[:, None]
    fit = np.linalg.lstsq(np.c_[x, np.ones(200)], y[:, 0], rcond=None)[1][0]
    r = np.sqrt(1 - fit / np.square(y - y.mean()).sum())
    one = {"components": 1, "energy": 1.0}
    (to_x, to_y), correlation = canonical.fit((x, y), ridge=0.0, **one)
    assert correlation[0] == pytest.approx(r)
    a, b = to_x(x)[:, 0], to_y(y)[:, 0]
    assert np.mean(a * b) == pytest.approx(r) and a.var() == pytest.approx(1)
    assert canonical.correlation(x, np.ones((200, 1)), ridge=0.1) == 0
    mixed = x @ np.array([[9.0, 0, 0], [0, 1, 0], [0, 0, 0.1]])
    assert canonical.fit((x, mixed), ridge=0.5, components=3, energy=1)[1].max() <= 1


def test_gctw_puts_three_on_one_clock():
    rng = np.random.default_rng(0)
    phase = np.linspace(0, 1, 120)[:, None] * rng.uniform(2, 12, (1, 4))
    latent = np.sin(phase * np.pi + rng.uniform(0, 6, (1, 4)))
    frames, views = [], []
    for width in (4, 5, 6):
        speed = np.cumsum(np.repeat(rng.uniform(0.3, 0.9, 5), 24))
        ticks = np.linspace(speed[0], speed[-1], round(speed[-1]))
        frames.append(np.interp(ticks, speed, np.arange(120)).round().astype(int))
        views.append(latent[frames[-1]] @ rng.normal(size=(4, width)))
        views[-1] += 0.01 * rng.normal(size=views[-1].shape)
    found = alignment.gctw(views, components=3)

    def spread(path_ls):
        """How far apart the frames of one tick lie, in the latent sequence."""
        places = [f[p] for f, p in zip(frames, path_ls.T, strict=True)]
        return np.ptp(np.stack(places), 0).mean()

    assert spread(found.path) < 0.5 * spread(canonical.uniform([*map(len, views)]))
    assert found.path.shape == (max(map(len, views)), 3)
    assert (np.diff(found.path, axis=0) >= 0).all()
    assert found.correlations.min() > 0.95


def test_merge_finds_shifts_of_unequal_sampling():
    rng = np.random.default_rng(3)
    time = np.arange(0, 20, 0.01)
    cause = np.convolve(rng.normal(size=len(time)), np.hanning(80), "same")

    def sampled(rate, start, seconds, width):
        at = start + np.arange(0, seconds, 1 / rate)
        signal = np.interp(at, time, cause)[:, None] * rng.normal(size=(1, width))
        return signal + 0.02 * rng.normal(size=signal.shape)

    sources = [sampled(25, 2, 12, 2), sampled(50, 3.2, 9, 3), sampled(10, 1.0, 14, 1)]
    merged = alignment.merge(sources, rates=[25, 50, 10], max_shift=2)
    np.testing.assert_allclose(merged.shifts, [0, 1.2, -1.0], atol=0.021)
    assert merged.scores.min() > 0.95
    assert merged.time[0] == pytest.approx(-1, abs=0.03)
    assert np.allclose(np.diff(merged.time), 0.02)
    assert (np.isnan(merged.values[0][:, 0]) == ~merged.present[:, 0]).all()
    tick = np.flatnonzero(np.isclose(merged.time, 4.0))[0]
    np.testing.assert_allclose(merged.values[0][tick], sources[0][100])
    times = [np.arange(len(s)) / r for s, r in zip(sources, (25, 50, 10), strict=True)]
    same = alignment.merge(sources, times=times, max_shift=2)
    np.testing.assert_allclose(same.shifts, merged.shifts)


X = np.random.default_rng(3).normal(size=(12, 2))
STILL = np.c_[X, np.full(12, 0.5)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment.ctw(X, STILL), "column 2 of y is 0.5 in all frames"),
        (lambda: alignment.ctw(X, X[:2]), "y has 2 frames: give 3"),
        (
            lambda: alignment.ctw(X, X @ np.ones((2, 20))),
            "12 frames and 20 columns.*ridge",
        ),
        (lambda: alignment.ctw(X, X, ridge=1), "ridge is 1"),
        (lambda: alignment.ctw(X, X, init="best"), "init is 'best'"),
        (lambda: alignment.ctw(X, X[:, :1], init="dtw"), "2 columns and y 1"),
        (lambda: alignment.gctw([X]), "1 sequences: give 2"),
        (lambda: alignment.merge([X, X]), "no sampling rates: give rates"),
        (lambda: alignment.merge([X, X], rates=[25]), "2 sources and 1 rates"),
        (lambda: alignment.merge([X, X], rates=[25, 0]), "source 1 has a rate of 0"),
        (lambda: alignment.merge([X], times=[np.zeros(12)]), "do not rise after sam"),
        (lambda: alignment.merge([X], times=[np.zeros(3)]), "12 samples and 3 times"),
        (lambda: alignment.merge([X, X[:3]], rates=[5, 5]), "overlaps the first in"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()
