"""Frechet distance against closed forms, inception score at its two ends."""

import numpy as np
import pytest
import scipy.linalg
from scipy import special

from mmjax.errors import UserError
from mmjax.metrics import frechet


def fid(a_nd, b_nd):
    return frechet.distance(*frechet.gaussian(a_nd), *frechet.gaussian(b_nd))


def softmax(logits):
    return special.softmax(logits, axis=-1)


def score(chances, weights=None):
    weights = np.ones(len(chances)) if weights is None else weights
    return frechet.inception_score(chances)(weights)


def covariance(rng, d, rank=None):
    rows = rng.normal(size=(rank or 2 * d, d))
    return rows.T @ rows / len(rows)


def test_one_dimension_in_closed_form():
    # (mu_a - mu_b)^2 + (sigma_a - sigma_b)^2
    got = frechet.distance(*(np.array(x) for x in ([3.0], [[4.0]], [1.0], [[25.0]])))
    assert got == pytest.approx((3 - 1) ** 2 + (2 - 5) ** 2)


def test_covariances_that_commute_in_closed_form():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    a, b = rng.uniform(0, 4, 6), rng.uniform(0, 4, 6)
    mean_a, mean_b = rng.normal(size=(2, 6))
    got = frechet.distance(mean_a, basis * a @ basis.T, mean_b, basis * b @ basis.T)
    wanted = np.sum((mean_a - mean_b) ** 2) + np.sum((a**0.5 - b**0.5) ** 2)
    assert got == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("rank", [40, 5])
def test_matches_the_root_of_the_product(rank):
    rng = np.random.default_rng(1)
    a, b = covariance(rng, 12, rank), covariance(rng, 12)
    mean_a, mean_b = rng.normal(size=(2, 12))
    root = scipy.linalg.sqrtm(a @ b).real
    wanted = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * root)
    # a root of a singular product is only good to the root of the rounding
    exact = 1e-9 if rank == 40 else 1e-5
    assert frechet.distance(mean_a, a, mean_b, b) == pytest.approx(wanted, rel=exact)


def test_samples_approach_the_distance_of_their_gaussians():
    rng = np.random.default_rng(2)
    a, b = covariance(rng, 4), covariance(rng, 4)
    mean_a, mean_b = np.zeros(4), np.array([1.0, 0, -2, 0])
    drawn_a = rng.multivariate_normal(mean_a, a, 40_000)
    drawn_b = rng.multivariate_normal(mean_b, b, 40_000)
    wanted = frechet.distance(mean_a, a, mean_b, b)
    assert fid(drawn_a, drawn_b) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (20, 64), (2, 100)])
def test_equal_sets_are_at_zero_in_any_order(n, d):
    rng = np.random.default_rng(3)
    rows = (100 * rng.normal(size=(n, d)) + 5).astype(np.float32)
    assert fid(rows, rows[::-1]) < 1e-6 * np.var(rows) * d
    other = rng.normal(size=(n + 1, d))
    order = rng.permutation(n)
    assert fid(rows, other) == pytest.approx(fid(rows[order], other[::-1]), rel=1e-9)
    assert fid(rows, other) == pytest.approx(fid(other, rows))


def test_weights_are_repeats():
    rng = np.random.default_rng(4)
    rows, weights = rng.normal(size=(9, 3)), np.arange(9.0)
    mean, cov = frechet.gaussian(rows, weights)
    repeated = np.repeat(rows, np.arange(9), axis=0)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(cov, np.cov(repeated.T))
    chances = softmax(rows)
    assert score(chances, weights) == pytest.approx(
        score(np.repeat(chances, np.arange(9), axis=0))
    )


def test_refuses_what_has_no_covariance():
    with pytest.raises(UserError, match=r"features are \(1, 3\)"):
        frechet.gaussian(np.ones((1, 3)))
    rows = np.ones((4, 3))
    rows[2, 1] = np.nan
    with pytest.raises(UserError, match="1 of 4 rows of features are not finite"):
        frechet.gaussian(rows)


def test_inception_score_at_its_ends():
    classes = np.eye(7)[np.arange(70) % 7]
    assert score(classes) == pytest.approx(7)
    assert score(softmax(1e4 * classes)) == pytest.approx(7)
    assert score(classes[:1].repeat(9, 0)) == pytest.approx(1)
    assert score(np.full((5, 3), 1 / 3)) == pytest.approx(1)
    two = np.eye(7)[np.arange(10) % 2]  # two of seven classes are all it draws
    assert score(two) == pytest.approx(2)


def test_inception_score_by_hand():
    chances = np.random.default_rng(0).dirichlet(np.ones(4), 6)
    marginal = chances.mean(0)
    terms = [
        sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True))
        for row in chances
    ]
    assert score(chances) == pytest.approx(np.exp(np.mean(terms)))


def test_resampled_is_the_distance_of_weighted_rows():
    rng = np.random.default_rng(6)
    for n, d in ((60, 20), (15, 20)):
        rows, target = (
            rng.normal(size=(n, d)),
            frechet.gaussian(rng.normal(size=(50, d))),
        )
        statistic = frechet.resampled(rows, *target)
        for weights in (np.ones(n), rng.integers(0, 4, n).astype(float)):
            wanted = frechet.distance(*frechet.gaussian(rows, weights), *target)
            assert statistic(weights) == pytest.approx(wanted, rel=1e-5)


def test_the_interval_surrounds_a_biased_statistic():
    rng = np.random.default_rng(5)
    rows, other = rng.normal(size=(60, 20)), rng.normal(size=(60, 20))
    value = fid(rows, other)
    statistic = frechet.resampled(rows, *frechet.gaussian(other))
    draw = {"resamples": 100, "seed": 0}
    got = frechet.with_interval("fid", value, statistic, 60, **draw)
    assert got["fid"] == value
    assert got["fid_lo"] < value < got["fid_hi"]
    drawn = np.bincount(rng.integers(0, 60, 60), minlength=60).astype(float)
    assert statistic(drawn) > got["fid_hi"]  # which is why the interval is moved
    assert frechet.with_interval("fid", value, statistic, 60, **draw) == got
