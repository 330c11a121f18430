"""Robustness is zero-shot, once for every condition."""

import numpy as np
import pytest

from mmjax.data.sources.shifted import Shifted
from mmjax.errors import UserError
from mmjax.evaluators import robustness, zero_shot

NAMES = tuple("abcdefg")


def example(make_source, **more):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, len(NAMES), 30)
    vectors = rng.integers(0, 255, (30, 12))
    source = make_source(vectors, labels=labels, class_names=NAMES, **more)
    variables = {"image": rng.normal(size=(12, 5)), "text": rng.normal(size=(40, 5))}
    return source, {k: np.float32(v) for k, v in variables.items()}


def test_every_condition_is_what_zero_shot_says_of_it(make_env, make_source):
    source, variables = example(make_source, broken={2})
    cfg = {"source": source, "templates": ["photo {}"], "resamples": 50}
    more = {"shifts": ("noise", "gray"), "severities": (1, 5)}
    got = robustness.Evaluator({**cfg, **more}, make_env()).run(variables)
    alone = zero_shot.Evaluator(cfg, make_env()).run(variables)
    assert got.values["clean"] == alone.values["top1"]
    found = []
    for shift in more["shifts"]:
        for severity in more["severities"]:
            changed = dict(cfg, source=Shifted(source, shift, severity))
            want = (
                zero_shot.Evaluator(changed, make_env()).run(variables).values["top1"]
            )
            assert got.values[f"{shift}_{severity}"] == pytest.approx(want)
            found.append(want)
    assert got.values["shifted"] == pytest.approx(np.mean(found))
    assert got.values["kept"] == pytest.approx(np.mean(found) / got.values["clean"])
    assert len(set(found)) > 1  # the shifts do something
    assert got.arrays["hit"].shape == (5, 29)
    assert got.card["counts"] == {"examples": 29, "broken": 1}
    drawn = robustness.figure(got.values, got.arrays, "title")
    assert len(drawn.axes[0].lines) == 2


def test_refuses_before_it_runs(make_env, make_source):
    source, _ = example(make_source)
    for more, message in (
        ({"shifts": ("snow",)}, "no shift is called 'snow'"),
        ({"severities": (0,)}, "severity 0"),
        ({"shifts": ()}, "at least one"),
    ):
        with pytest.raises(UserError, match=message):
            robustness.Evaluator({"source": source, **more}, make_env())
