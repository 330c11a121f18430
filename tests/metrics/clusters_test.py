"""Clusters of rings and blobs, scores in closed form; the SVM against its optimum."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import clusters, linear_svm


def test_scores_in_closed_form():
    label = np.array([0, 0, 1, 1])
    assert clusters.scores(np.array([5, 5, 2, 2]), label) == pytest.approx((1, 1))
    assert clusters.scores(np.zeros(4), label) == pytest.approx((0.5, 0))
    # 3 of 4 right; I = ln 2 - (3/4) H(1/3), over ln 2
    got = clusters.scores(np.array([0, 0, 0, 1]), label)
    entropy = -(2 * np.log(2 / 3) + np.log(1 / 3)) / 3
    assert got == pytest.approx((0.75, 1 - 0.75 * entropy / np.log(2)))
    assert clusters.scores(np.zeros(3), np.zeros(3)) == (1.0, 0.0)


def test_nearest_are_those_of_all_distances(monkeypatch):
    monkeypatch.setattr(clusters, "_ROWS", 7)
    x = np.random.default_rng(3).normal(size=(20, 3)) + 5
    apart = np.linalg.norm(x[:, None] - x, axis=-1) + np.diag(np.full(20, np.inf))
    want = np.sort(np.argsort(apart, axis=1)[:, :4], axis=1)
    np.testing.assert_array_equal(np.sort(clusters._nearest(x, 4), axis=1), want)


def test_spectral_parts_rings_that_kmeans_cannot():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    radius = np.repeat([1.0, 3.0], 150) + 0.02 * rng.normal(size=300)
    x = radius[:, None] * np.stack([np.cos(2 * angle), np.sin(2 * angle)], 1)
    label = np.repeat([0, 1], 150)
    assert clusters.scores(clusters.spectral(x, 2), label)[0] == 1
    assert clusters.scores(clusters.kmeans(x, 2), label)[0] < 0.8
    with pytest.raises(UserError, match="2 clusters by 5 neighbours"):
        clusters.spectral(x[:5], 2)


def test_svm_is_where_its_gradient_is_zero_and_parts_what_can_be_parted():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 4)) + np.repeat(3 * np.eye(4)[:3], 50, 0)
    label = np.repeat([2, 5, 7], 50)
    weights, classes = linear_svm.fit(x, label, c=0.1)
    one = np.hstack([x, np.ones((150, 1))])
    for column, name in enumerate(classes):
        y, w = np.where(label == name, 1, -1), weights[:, column]
        slack = np.maximum(0, 1 - y * (one @ w))
        np.testing.assert_allclose(w - 0.2 * one.T @ (y * slack), 0, atol=1e-3)
    assert (linear_svm.predict(weights, classes, x) == label).mean() > 0.9
    with pytest.raises(UserError, match="all 3 labels are 1"):
        linear_svm.fit(x[:3], np.ones(3), c=1.0)
    with pytest.raises(UserError, match="C is 0"):
        linear_svm.fit(x, label, c=0)


def test_svm_of_more_columns_than_rows_is_the_same_problem():
    rng = np.random.default_rng(2)
    label = np.arange(30) % 3
    x = rng.normal(size=(30, 50)) + 2 * rng.normal(size=(3, 50))[label]
    x[:, 40:] = x[:, :10]  # of lower rank
    weights, classes = linear_svm.fit(x, label, c=0.05)
    one = np.hstack([x, np.ones((30, 1))])
    for column, name in enumerate(classes):
        y, w = np.where(label == name, 1, -1), weights[:, column]
        slack = np.maximum(0, 1 - y * (one @ w))
        np.testing.assert_allclose(w - 0.1 * one.T @ (y * slack), 0, atol=1e-3)


def test_svm_of_pairs_is_that_of_their_rows_and_votes():
    rng = np.random.default_rng(3)
    label = np.repeat([2, 5, 7, 8], 30)
    x = rng.normal(size=(120, 4)) + np.repeat(2 * np.eye(4), 30, 0)
    weights, classes = linear_svm.fit(x, label, c=0.5, pairs=True)
    assert weights.shape == (5, 6)
    votes = np.zeros((120, 4))
    for column, (a, b) in enumerate(itertools.combinations(range(4), 2)):
        rows = np.isin(label, classes[[a, b]])
        alone, both = linear_svm.fit(x[rows], label[rows], c=0.5)
        ours = weights[:, column]
        np.testing.assert_allclose(
            ours, alone[:, list(both).index(classes[a])], atol=1e-4
        )
        won = np.hstack([x, np.ones((120, 1))]) @ ours > 0
        votes[np.arange(120), np.where(won, a, b)] += 1
    got = linear_svm.predict(weights, classes, x, pairs=True)
    np.testing.assert_array_equal(got, classes[votes.argmax(1)])
    assert (got == label).mean() > 0.7
