"""Shares of modalities by brute force over orders and over what is missing."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import fusion

INPUTS = ("text", "audio", "video")


def utility(seed=0, inputs=INPUTS, n=5):
    rng = np.random.default_rng(seed)
    return {s: rng.normal(size=n) for s in fusion.subsets(inputs)}


def test_shapley_is_the_mean_over_all_orders():
    worth = utility()
    want = {name: [] for name in INPUTS}
    for order in itertools.permutations(INPUTS):
        for k, name in enumerate(order):
            before, after = set(order[:k]), set(order[: k + 1])
            pair = (tuple(x for x in INPUTS if x in s) for s in (after, before))
            with_it, without = (worth[s] for s in pair)
            want[name].append(with_it - without)
    got = fusion.shapley(worth, INPUTS)
    for name in INPUTS:
        np.testing.assert_allclose(got[name], np.mean(want[name], 0), atol=1e-12)
    total = worth[INPUTS] - worth[()]
    np.testing.assert_allclose(sum(got.values()), total, atol=1e-12)


def test_a_dummy_has_no_share_and_twins_have_the_same():
    worth = {s: np.float64([("text" in s) + ("video" in s)]) for s in utility()}
    got = fusion.shapley(worth, INPUTS)
    assert got["audio"] == pytest.approx(0) and got["text"] == pytest.approx(1)
    assert got["text"] == pytest.approx(got["video"])


def test_missing_is_the_expectation_over_draws():
    worth, rate = utility(1), 0.3
    rows = fusion.measures(worth, INPUTS, (rate, 0.0))
    rng, drawn = np.random.default_rng(0), []
    for there in rng.random((20_000, 3)) >= rate:
        if there.any():
            drawn.append(worth[tuple(np.array(INPUTS)[there].tolist())])
    np.testing.assert_allclose(rows["missing_0.3"], np.mean(drawn, 0), atol=0.03)
    np.testing.assert_array_equal(rows["missing_0"], worth[INPUTS])
    np.testing.assert_array_equal(rows["without_text"], worth[("audio", "video")])
    np.testing.assert_array_equal(rows["only_text"], worth[("text",)])


def test_too_many_modalities():
    with pytest.raises(UserError, match="9 modalities have 512 sets: use 8"):
        fusion.subsets("abcdefghi")
