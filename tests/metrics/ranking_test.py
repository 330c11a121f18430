"""Ranks against a loop over all scores, ties by hand, and chunking."""

import numpy as np
import pytest

from mmjax.metrics import ranking


def by_hand(scores, relevant):
    out = []
    for q, row in enumerate(scores):
        best = max(row[g] for g in relevant[q])
        wrong = [g for g in range(len(row)) if g not in relevant[q]]
        out.append(sum(row[g] >= best for g in wrong))
    return out


@pytest.mark.parametrize("cells", [1, 50, 1 << 20])
def test_matches_a_loop(monkeypatch, cells):
    monkeypatch.setattr(ranking, "_CELLS", cells)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(13, 6)), rng.normal(size=(21, 6))
    relevant = {q: set(rng.choice(21, rng.integers(1, 4), False)) for q in range(13)}
    pairs = sorted((q, g) for q, found in relevant.items() for g in found)
    rows, columns = np.asarray(pairs).T
    got = ranking.ranks(query, gallery, rows, columns)
    assert list(got) == by_hand(query @ gallery.T, relevant)


def test_ties_count_against():
    gallery = np.asarray([[1.0, 0], [1, 0], [0, 1]])
    query = np.asarray([[1.0, 0], [0, 1], [1, 1]])
    rows = np.arange(3)
    assert list(ranking.ranks(query, gallery, rows, np.asarray([0, 2, 1]))) == [1, 0, 2]


def test_ties_among_right_answers_do_not():
    gallery = np.ones((3, 1))
    got = ranking.ranks(np.ones((1, 1)), gallery, np.zeros(3, int), np.arange(3))
    assert list(got) == [0]


def test_rounding_is_a_tie():
    gallery = np.asarray([[0.5], [0.5 - 1e-7]], np.float32)
    got = ranking.ranks(np.ones((1, 1), np.float32), gallery, *np.zeros((2, 1), int))
    assert list(got) == [1]


def test_a_query_without_answer_is_refused():
    with pytest.raises(ValueError, match="query 1 "):
        ranking.ranks(np.ones((2, 1)), np.ones((1, 1)), *np.zeros((2, 1), int))
