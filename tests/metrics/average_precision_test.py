"""Tie-aware average precision against all orders of the ties."""

import itertools

import numpy as np
import pytest

from mmjax.metrics.average_precision import average_precision, precision_at


def plain(relevant):
    ranks = np.flatnonzero(relevant) + 1
    return np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0


def orders(distance, relevant):
    """The relevances of every order that the distances allow."""
    groups = [np.flatnonzero(distance == d) for d in np.unique(distance)]
    for parts in itertools.product(*(itertools.permutations(g) for g in groups)):
        yield relevant[np.concatenate([list(p) for p in parts])]


@pytest.mark.parametrize("seed", range(8))
def test_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    distance, relevant = rng.integers(3, size=7), rng.random(7) < 0.5
    listed = list(orders(distance, relevant))
    want = np.mean([plain(r) for r in listed])
    assert average_precision(distance, relevant) == pytest.approx(want)
    for n in (1, 3, 7):
        share = np.mean([r[:n].mean() for r in listed])
        assert precision_at(distance, relevant, [n])[0] == pytest.approx(share)


def test_ends():
    assert average_precision(np.arange(5), np.zeros(5, bool)) == 0
    assert average_precision(np.arange(5), np.arange(5) < 2) == 1
    relevant = np.arange(100) == 3  # every distance the same: chance
    want = np.mean(1 / np.arange(1, 101))
    assert average_precision(np.zeros(100), relevant) == pytest.approx(want)
    assert precision_at(np.arange(3), np.array([1, 0, 1], bool), [9])[0] == 2 / 3
