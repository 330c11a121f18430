"""Intervals and strengths of votes against scipy and worked examples."""

import numpy as np
import pytest
from scipy import optimize, stats

from mmjax.errors import UserError
from mmjax.metrics import bootstrap, preference


@pytest.mark.parametrize("wins, count", [(0, 5), (8, 10), (450, 500), (7, 7), (1, 3)])
def test_wilson_is_scipys(wins, count):
    known = stats.binomtest(wins, count).proportion_ci(method="wilson")
    assert preference.wilson(wins, count) == pytest.approx(tuple(known), abs=1e-12)


def test_wilsons_ends():
    assert np.isnan(preference.wilson(0, 0)).all()
    low, high = preference.wilson(2.5, 5)
    assert low + high == pytest.approx(1)
    with pytest.raises(UserError, match="6 wins of 5 votes: give 0 to 5"):
        preference.wilson(6, 5)


def test_majority():
    wins, counts = np.array([5, 3, 2, 2, 0]), np.array([5, 5, 5, 4, 5])
    np.testing.assert_array_equal(preference.majority(wins, counts), [1, 1, 0, 0.5, 0])


# Four players, wins of the row over the column, of the article on the model in
# Wikipedia; their strengths there, with geometric mean 1.
WINS = np.array([[0, 2, 0, 1], [3, 0, 5, 0], [0, 3, 0, 1], [4, 0, 3, 0]])
STRENGTHS = [0.640, 1.043, 0.660, 2.270]


def test_bradley_terry_is_the_worked_example():
    scores = preference.bradley_terry(WINS, prior=0)
    np.testing.assert_allclose(np.exp(scores), STRENGTHS, atol=1e-3)


def test_bradley_terry_is_the_most_likely():
    def loss(free):
        score = np.append(free, -free.sum())
        return (WINS * np.log1p(np.exp(score[None] - score[:, None]))).sum()

    best = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    scores = preference.bradley_terry(WINS, prior=0)
    np.testing.assert_allclose(scores[:3], best, atol=1e-4)


def test_bradley_terry_in_one_call_and_of_extremes():
    both = preference.bradley_terry(np.stack([WINS, WINS.T]), prior=0.0)
    np.testing.assert_allclose(both[0], preference.bradley_terry(WINS, prior=0.0))
    np.testing.assert_allclose(both.sum(-1), 0, atol=1e-9)
    never_lost = preference.bradley_terry([[0, 9], [0, 0]])
    assert np.isfinite(never_lost).all()
    assert never_lost[0] - never_lost[1] == pytest.approx(np.log(9.1 / 0.1))
    with pytest.raises(UserError, match=r"\(1, 1\): give \(m, m\) of two models"):
        preference.bradley_terry([[0]])


def test_a_crossed_bootstrap_knows_its_clusters():
    """Means of row + column effects: the spread is theirs, not that of the cells."""
    rng = np.random.default_rng(0)
    rows, columns = (i.ravel() for i in np.indices((30, 40)))
    value_n = rng.normal(size=30)[rows] + rng.normal(size=40)[columns]
    draws = bootstrap.crossed([rows, columns], resamples=400, seed=0)
    means = [weight_n @ value_n / weight_n.sum() for weight_n in draws]
    wanted = np.sqrt(1 / 30 + 1 / 40)
    assert np.std(means) == pytest.approx(wanted, rel=0.2)
    assert np.std(means) > 4 * np.std(value_n) / np.sqrt(len(value_n))
