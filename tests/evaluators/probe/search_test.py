"""The grid and the search: what it looks at, and what it finds."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators.probe import logistic, search


def test_the_grid_is_the_papers():
    grid = search.grid()
    assert len(grid) == 97 and grid[0] == 1e-6 and grid[-1] == 1e6
    np.testing.assert_allclose(np.diff(np.log10(grid)), 1 / 8)
    np.testing.assert_allclose(grid[:: search.COARSE], 10.0 ** np.arange(-6, 7, 2))


@pytest.mark.parametrize("best", [0, 1, 41, 50, 95, 96])
def test_finds_the_peak_of_one_hill(best):
    calls = []

    def accuracies(places):
        calls.append(tuple(places))
        return [-abs(k - best) for k in places]

    scores = search.coarse_to_fine(accuracies)
    assert search.peak(scores) == best
    asked = [k for call in calls for k in call]
    assert len(asked) == len(set(asked)) <= 7 + 4 * 2
    assert calls[0] == tuple(range(0, 97, 16))


def test_of_equals_the_strongest():
    assert search.peak({0: 0.5, 16: 0.7, 32: 0.7, 48: 0.1}) == 32


def problem(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 240)
    features = np.eye(3, 20)[labels] + rng.normal(size=(240, 20))
    half = slice(120), slice(120, None)
    return [(features[part].astype(np.float32), labels[part]) for part in half]


def test_the_search_is_as_good_as_the_whole_grid():
    train, val = problem()
    made = logistic.Problem(*train)
    found = {m: search.choose(made, *val, method=m) for m in search.METHODS}
    whole, quick = found["full"], found["coarse_to_fine"]
    assert len(whole.l2_t) == 97 and len(quick.l2_t) == 15
    assert quick.accuracy_t.max() >= whole.accuracy_t.max() - 1 / 120
    for chosen in found.values():
        accuracy = (chosen.probe.predict(val[0]) == val[1]).mean()
        assert abs(accuracy - chosen.accuracy_t.max()) < 2.5 / 120  # it was fitted on
        assert chosen.probe.gap < 1e-10 and not chosen.unconverged
        at = chosen.l2_t == chosen.probe.l2
        assert chosen.accuracy_t[at] == chosen.accuracy_t.max()


def test_refuses():
    train, val = problem()
    made = logistic.Problem(*train)
    with pytest.raises(UserError, match="'grid': use coarse_to_fine or full"):
        search.choose(made, *val, method="grid")
    with pytest.raises(UserError, match="no validation data"):
        search.choose(made, val[0][:0], val[1][:0])
