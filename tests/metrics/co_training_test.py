"""Co-training on views that are independent given the class, as the paper assumes."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import co_training


def rows(n, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    label_n = np.arange(n) % 3
    centre = np.random.default_rng(5).normal(size=(2, 3, 6)) * 1.3
    views = [c[label_n] + spread * rng.normal(size=(n, 6)) for c in centre]
    return views, label_n


def test_the_classifier_is_bayes_rule_of_one_covariance():
    (x, _), label_n = rows(60, 0)
    model = co_training.fit(x, label_n, 3, shrink=0.4)
    means = np.stack([x[label_n == c].mean(0) for c in range(3)])
    inside = x - means[label_n]
    covariance = inside.T @ inside / 60
    covariance = 0.6 * covariance + 0.4 * np.trace(covariance) / 6 * np.eye(6)
    away = x[:, None] - means
    density = np.exp(
        -0.5 * np.einsum("ncd,de,nce->nc", away, np.linalg.inv(covariance), away)
    )
    want = density / density.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(model.log_posterior(x)), want, atol=1e-9)


def test_views_teach_each_other():
    train, label_n = rows(600, 0)
    test, truth_n = rows(600, 1)
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        known_n = np.zeros(600, bool)
        for c in range(3):
            known_n[rng.permutation(np.flatnonzero(label_n == c))[:2]] = True
        alone = [co_training.fit(x[known_n], label_n[known_n], 3) for x in train]
        hidden = np.where(known_n, label_n, 7)  # other labels are not read
        both = co_training.co_train(train, hidden, known_n, 3, seed=seed, rounds=40)
        before, after = (
            np.mean(
                [
                    (m.log_posterior(x).argmax(1) == truth_n).mean()
                    for m, x in zip(models, test, strict=True)
                ]
            )
            for models in (alone, both)
        )
        gains.append(after - before)
    assert np.mean(gains) > 0.03


def test_rows_run_out_and_the_same_seed_gives_the_same():
    train, label_n = rows(30, 0)
    known_n = np.arange(30) < 6
    first, again = (
        co_training.co_train(train, label_n, known_n, 3, rounds=99, pool=5)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first[0].weights_dc, again[0].weights_dc)
    assert known_n.sum() == 6  # the caller's is as it was


def test_bad_input():
    (x, _), label_n = rows(30, 0)
    with pytest.raises(UserError, match="class 3 of 4 has no labelled row"):
        co_training.fit(x, label_n, 4)
    with pytest.raises(UserError, match=r"shrink is 0: use more than 0, at most 1"):
        co_training.fit(x, label_n, 3, shrink=0)
