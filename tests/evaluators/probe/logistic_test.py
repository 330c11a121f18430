"""Logistic regression against float64 conditions of its optimum, and scikit-learn."""

import warnings

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators.probe import logistic


def fit(features_nd, labels_n, *, l2=1.0):
    return logistic.Problem(features_nd, labels_n).path([l2])[0]


def data(n=300, d=12, classes=4, *, seed=0, noise=2.0):
    """Overlapping classes; features of unlike scales, far from the origin."""
    rng = np.random.default_rng(seed)
    labels_n = rng.integers(0, classes, n)
    centres_cd = rng.normal(size=(classes, d))
    features_nd = centres_cd[labels_n] + noise * rng.normal(size=(n, d))
    scales_d = np.geomspace(0.1, 10, d)
    return (features_nd * scales_d + 5 * scales_d).astype(np.float32), labels_n


def terms(probe, features_nd, labels_n):
    """(objective, its gradient by weights, by bias) of the mean, in float64."""
    n, c = len(labels_n), len(probe.classes_c)
    weights_dc = probe.weights_dc.astype(np.float64)
    logits_nc = features_nd.astype(np.float64) @ weights_dc + probe.bias_c
    logits_nc -= logits_nc.max(1, keepdims=True)
    chance_nc = np.exp(logits_nc)
    chance_nc /= chance_nc.sum(1, keepdims=True)
    own_n = np.searchsorted(probe.classes_c, labels_n)
    penalty = probe.l2 * (2 if c == 2 else 1) / n
    value = -np.log(chance_nc[np.arange(n), own_n]).mean()
    value += penalty / 2 * (weights_dc**2).sum()
    rest_nc = (chance_nc - np.eye(c)[own_n]) / n
    by_weights = features_nd.T.astype(np.float64) @ rest_nc + penalty * weights_dc
    return value, by_weights, rest_nc.sum(0)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_gradient_vanishes_along_the_path(classes):
    features_nd, labels_n = data(classes=classes)
    problem = logistic.Problem(features_nd, labels_n)
    l2s = [1e-2, 1e4, 1.0, 1e2]  # in no order
    probes = problem.path(l2s)
    scale_d = features_nd.std(0)
    for l2, probe in zip(l2s, probes, strict=True):
        assert (probe.l2, probe.converged) == (l2, True)
        value, by_weights, by_bias = terms(probe, features_nd, labels_n)
        assert value == pytest.approx(probe.objective, rel=1e-5)
        assert np.abs(by_weights / scale_d[:, None]).max() < 3e-5
        assert np.abs(by_bias).max() < 3e-5
    # alone and cold: the same optimum
    alone = fit(features_nd, labels_n, l2=1.0)
    np.testing.assert_allclose(
        alone.weights_dc, probes[2].weights_dc, atol=2e-4 * abs(alone.weights_dc).max()
    )


def test_a_strong_penalty_leaves_the_class_frequencies():
    features_nd, labels_n = data()
    probe = fit(features_nd, labels_n, l2=1e9)
    assert np.abs(probe.weights_dc).max() < 1e-5
    odds_c = np.exp(probe.scores(features_nd[:1])[0])
    share_c = np.bincount(labels_n) / len(labels_n)
    np.testing.assert_allclose(odds_c / odds_c.sum(), share_c, rtol=1e-2)


def test_fewer_rows_than_features_and_a_rotation_change_nothing():
    features_nd, labels_n = data(n=30, d=50)
    turn_dd = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    turned_nd = (features_nd @ turn_dd).astype(np.float32)
    first, second = (fit(x, labels_n) for x in (features_nd, turned_nd))
    assert first.objective == pytest.approx(second.objective, rel=1e-5)
    assert np.abs(terms(first, features_nd, labels_n)[1]).max() < 1e-4
    np.testing.assert_array_equal(first.predict(features_nd), labels_n)


def test_labels_that_are_absent_are_never_predicted():
    features_nd, labels_n = data(classes=3)
    probe = fit(features_nd, np.asarray([2, 5, 9])[labels_n])
    assert set(probe.predict(features_nd)) == {2, 5, 9}
    assert probe.scores(features_nd).shape == (300, 3)


def test_too_few_iterations_are_told():
    probe = logistic.Problem(*data()).path([1e-4], iterations=2)[0]
    assert (probe.iterations, probe.converged) == (2, False)


@pytest.mark.parametrize(
    "features, labels, words",
    [
        (np.ones((3, 2)), [0, 1], r"\(3, 2\) and labels \(2,\)"),
        (np.ones(3), [0, 1, 0], r"features \(3,\)"),
        (np.ones((2, 2)), [0.0, 1.0], "of float64: give one integer"),
        (np.ones((2, 2)), [4, 4], "all 2 labels are 4"),
        (np.asarray([[1.0], [np.nan]]), [0, 1], "1 of 2 rows .* not finite"),
    ],
)
def test_refuses(features, labels, words):
    with pytest.raises(UserError, match=words):
        logistic.Problem(features, np.asarray(labels))


@pytest.mark.parametrize("l2", [0.0, -1.0, np.nan])
def test_refuses_l2s(l2):
    with pytest.raises(UserError, match="must be positive"):
        fit(*data(n=40), l2=l2)


@pytest.mark.parity
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("n", [40, 400])
def test_the_same_optimum_as_scikit_learn(classes, n):
    linear = pytest.importorskip("sklearn.linear_model")
    features_nd, labels_n = data(n=n, d=60, classes=classes)
    features_nd /= features_nd.std(0)
    l2s = [1e-3, 1e-2, 1.0, 1e2, 1e4]
    probes = logistic.Problem(features_nd, labels_n).path(l2s)
    wide_nd = features_nd.astype(np.float64)
    for probe in probes:
        C = 1 / probe.l2
        lbfgs = linear.LogisticRegression(C=C, tol=1e-10, max_iter=20_000)
        value, *_ = terms(probe, features_nd, labels_n)
        lbfgs.fit(wide_nd, labels_n)
        assert value <= _value(lbfgs, features_nd, labels_n, probe) * (1 + 1e-8)
        # scipy's L-BFGS stops short of 1e-4 of the weights where the penalty is weak
        newton = linear.LogisticRegression(C=C, tol=1e-12, solver="newton-cg")
        with warnings.catch_warnings():  # its line search says that it is at the end
            warnings.simplefilter("ignore")
            theirs_dc = newton.fit(wide_nd, labels_n).coef_.T
        ours_dc = probe.weights_dc - probe.weights_dc.mean(1, keepdims=True)
        if classes == 2:
            ours_dc = np.diff(probe.weights_dc)
        size = np.abs(theirs_dc).max()
        np.testing.assert_allclose(ours_dc, theirs_dc, atol=1e-4 * size)


def _value(peer, features_nd, labels_n, probe):
    """The objective of scikit-learn's solution."""
    chance_nc = peer.predict_proba(features_nd.astype(np.float64))
    fit = -np.log(chance_nc[np.arange(len(labels_n)), labels_n]).mean()
    return fit + probe.l2 / 2 / len(labels_n) * (peer.coef_**2).sum()
