"""Intervals against simulation and scipy; verdicts."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from mmjax.claims import measure
from mmjax.claims.measure import AGREES, DISAGREES, UNDECIDED, Estimate, Number
from mmjax.claims.spec import Check


def numbers(*values, error=0.0):
    return {seed: Number(value, error) for seed, value in enumerate(values)}


def test_without_examples_it_is_the_t_interval():
    values = (0.5, 0.7, 0.65, 0.8)
    got = measure.of_arm(numbers(*values))
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (got.low, got.high) == pytest.approx((low, high))


def test_examples_alone_are_a_normal_interval():
    got = measure.of_arm(numbers(0.5, 0.5, error=0.1))
    assert got.high - got.value == pytest.approx(1.96 * 0.1, rel=1e-3)


@pytest.mark.parametrize("seed_sd, examples", [(0.0, 100), (0.05, 100), (0.05, 5000)])
def test_the_interval_holds_the_truth_95_times_of_100(seed_sd, examples):
    """Accuracies of networks that share their test examples."""
    rng, held, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        hard_n = rng.uniform(size=examples)
        right = [hard_n < np.clip(rng.normal(0.7, seed_sd), 0, 1) for _ in range(3)]
        shares = [float(r.mean()) for r in right]
        errors = [math.sqrt(p * (1 - p) / examples) for p in shares]
        got = measure.mean(shares, errors)
        held += got.low <= 0.7 <= got.high
    assert 0.92 <= held / trials


def test_differences_are_paired_by_seed():
    first, second = numbers(1.0, 2.0, 3.0), numbers(0.5, 1.5, 2.5)
    got = measure.difference(first, second | {7: Number(9.0)})
    assert (got.value, got.low, got.high, got.seeds) == (0.5, 0.5, 0.5, 3)


def test_ratios_and_bounds():
    got = measure.ratio(numbers(2.0, 8.0), numbers(1.0, 1.0))
    assert got.value == pytest.approx(4)
    never = {s: Number(100.0, bound=True) for s in (0, 1)}
    got = measure.ratio(never, numbers(25.0, 20.0))
    assert got.low > 1 and got.high == math.inf
    assert measure.place(got, (1.0, None)) == AGREES
    assert measure.ratio(numbers(10.0, 10.0), never).low == 0
    assert math.isnan(measure.ratio(numbers(1.0), numbers(0.0)).value)


def test_a_power_law_is_found():
    x = (100, 300, 1000)
    arms = [numbers(*(1 - scale * n**-0.35 for scale in (2, 2.2, 1.9))) for n in x]
    got = measure.power_law(x, arms, error=True)
    assert (got.low, got.high) == pytest.approx((-0.35, -0.35))


@pytest.mark.parametrize(
    "low, high, band, verdict",
    [
        (0.1, 0.2, (0.0, None), AGREES),
        (-0.1, 0.2, (0.0, None), UNDECIDED),
        (-0.2, -0.1, (0.0, None), DISAGREES),
        (0.1, 0.2, (None, 0.15), UNDECIDED),
        (0.3, 0.4, (0.1, 0.2), DISAGREES),
        (math.nan, math.nan, (0.0, None), UNDECIDED),
    ],
)
def test_places(low, high, band, verdict):
    assert measure.place(Estimate(0.1, low, high, 3), band) == verdict


def test_an_order_needs_every_step():
    check = Check("", "order", ("a", "b", "c"), "m")
    table = {(n, "m"): numbers(v, v) for n, v in (("a", 3), ("b", 2), ("c", 1))}
    assert measure.judge(check, table)[1] == AGREES
    table["c", "m"] = numbers(2.5, 2.5)
    assert measure.judge(check, table)[1] == DISAGREES
    del table["c", "m"]
    assert measure.judge(check, table) == ([], UNDECIDED)


def test_the_rows_that_reach_a_level(tmp_path):
    rows = [{"step": 10, "val/top1": 0.2}, {"step": 20, "val/top1": 0.6}, {"step": 25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert measure.reached(tmp_path, "val/top1", 0.4, 8) == Number(15.0 * 8)
    assert measure.reached(tmp_path, "val/top1", 0.1, 8) == Number(5.0 * 8)
    assert measure.reached(tmp_path, "val/top1", 0.7, 8) == Number(200.0, bound=True)


def test_numbers_of_a_run_and_its_suite(tmp_path):
    row = {"step": 4, "val/top1": 0.5, "val/top1_lo": 0.3, "val/top1_hi": 0.7}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row | {"time/x": 1}) + "\n")
    suite = tmp_path / "summary.json"
    cell = {"dataset": "d", "protocol": "p", "values": {"r1": 0.25, "bad": None}}
    suite.write_text(json.dumps({"cells": [cell]}))
    found = measure.numbers(tmp_path, suite)
    assert found == {
        "val/top1": Number(0.5, pytest.approx(0.4 / 3.92, rel=1e-4)),
        "d.p/r1": Number(0.25),
    }
