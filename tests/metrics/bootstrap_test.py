"""Intervals: deterministic, and as wide as theory says."""

import numpy as np
import pytest

from mmjax.metrics import bootstrap


def mean_of(values):
    return lambda weights: np.atleast_1d(np.average(values, weights=weights))


def test_a_proportion_has_the_binomials_width():
    hits = np.arange(1000) < 300
    low, high = bootstrap.interval(mean_of(hits), 1000)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low[0], high[0]) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=50)
    one, same = (bootstrap.interval(mean_of(values), 50, seed=3) for _ in range(2))
    other = bootstrap.interval(mean_of(values), 50, seed=4)
    assert one == same and one != other


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        values = rng.normal(size=60)
        low, high = bootstrap.interval(mean_of(values), 60, resamples=200, seed=trial)
        inside += low[0] <= 0 <= high[0]
    assert 178 <= inside <= 198  # 95 % of 200, the percentile method a little short


def test_edges():
    got = bootstrap.with_interval(
        ["a"], mean_of(np.asarray([2.0])), 1, resamples=10, seed=0
    )
    assert got == {"a": 2.0, "a_lo": 2.0, "a_hi": 2.0}

    def sometimes_nan(weights):
        return np.asarray([np.nan if weights[0] == 0 else 1.0])

    assert np.isfinite(bootstrap.interval(sometimes_nan, 3)).all()
