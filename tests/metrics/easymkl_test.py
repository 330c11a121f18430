"""EasyMKL against a general solver and its own definition."""

import numpy as np
import pytest
from scipy import optimize

from mmjax.errors import UserError
from mmjax.metrics import easymkl

N, LAM = 14, 0.3


def problem(seed=0, classes=2):
    rng = np.random.default_rng(seed)
    label = np.arange(N) % classes
    good = np.eye(classes)[label] * 2 + 0.3 * rng.normal(size=(N, classes))
    views = [good, rng.normal(size=(N, 3))]
    return np.stack([x @ x.T for x in views]), label


def solved(kernel, sign):
    """The same quadratic programme by SLSQP."""

    def value(g):
        return (1 - LAM) * (sign * g) @ kernel @ (sign * g) + LAM * g @ g

    sums = [
        {"type": "eq", "fun": lambda g, s=s: g[sign == s].sum() - 1} for s in (1, -1)
    ]
    start = np.where(sign > 0, 1 / (sign > 0).sum(), 1 / (sign < 0).sum())
    options = {"ftol": 1e-14, "maxiter": 500}
    found = optimize.minimize(
        value, start, bounds=[(0, 1)] * N, constraints=sums, options=options
    )
    return found.x


def test_weights_and_machine_are_the_papers():
    kernels, label = problem()
    sign = np.where(label == 1, 1.0, -1.0)
    scaled = kernels / np.einsum("rnn->r", kernels)[:, None, None] * N
    gamma = solved(scaled.mean(0), sign)
    np.testing.assert_allclose(
        easymkl.nearest(scaled.mean(0), sign, LAM), gamma, atol=1e-5
    )
    weight = np.array([(sign * gamma) @ k @ (sign * gamma) for k in scaled])
    machine = easymkl.fit(kernels, label, lam=LAM)
    np.testing.assert_allclose(machine.weights[:, 1], weight / weight.sum(), atol=1e-4)
    assert machine.weights[0, 1] > 0.9  # the other kernel is noise
    joint = np.tensordot(weight / weight.sum(), scaled, 1)
    gamma = solved(joint, sign)
    raw = joint @ (sign * gamma)
    high, low = (gamma[sign == s] @ raw[sign == s] for s in (1, -1))
    want = (raw - (high + low) / 2) / ((high - low) / 2)
    got = machine.scores(kernels)
    np.testing.assert_allclose(got[:, 1], want, atol=1e-3)
    np.testing.assert_allclose(got[:, 0], -got[:, 1], atol=1e-12)


def test_several_classes_and_an_absent_kernel():
    kernels, label = problem(1, classes=3)
    machine = easymkl.fit(kernels, label)
    np.testing.assert_array_equal(machine.predict(kernels), label)
    absent = kernels * np.array([1, 0])[:, None, None]
    np.testing.assert_array_equal(machine.predict(absent), label)


def test_nearest_distribution():
    x = np.array([0.9, 0.8, -1.0])
    np.testing.assert_allclose(easymkl.to_simplex(x), [0.55, 0.45, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_n": np.zeros(N)}, "all 14 labels are 0"),
        ({"label_n": np.arange(9)}, r"kernels \(2, 14, 14\) and 9 labels"),
        ({"lam": 0.0}, "lam is 0.0: use more than 0"),
    ],
)
def test_refusals(change, message):
    kernels, label = problem()
    with pytest.raises(UserError, match=message):
        easymkl.fit(**{"kernels_rnn": kernels, "label_n": label, **change})
