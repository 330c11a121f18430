"""Held-out log probability from scores and annealed weights that are known."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.evaluators import log_probability


def log_score(variables, batch):
    """The first pixel, so that the mean over the source is known."""
    return batch["image"].reshape(len(batch["image"]), -1)[:, 0].astype("float32")


def log_partition(variables, batch):
    """Even seeds weigh 1, odd ones 3: a mean of 2 times exp(50)."""
    assert (
        batch["betas"].shape[1] == 30 and (batch["betas"][0, [0, -1]] == [0, 1]).all()
    )
    return 50.0 + jnp.where(batch["seed"] % 2 == 0, 0.0, math.log(3.0))


def run(make_env, make_source, score=log_score, partition=log_partition, **more):
    env = make_env(
        {"fake": make_source(np.arange(60).reshape(5, 12))},
        log_score=score,
        log_partition=partition,
        tokenizer=False,
    )
    cfg = {"type": "log_probability", "source": "fake", "runs": 10, "betas": 30} | more
    evaluator = evaluators.build("test", cfg, env)
    evaluator.check({})
    return evaluator.run({})


def test_log_probability_is_the_score_less_the_mean_weight(make_env, make_source):
    result = run(make_env, make_source)
    values = result.values
    assert values["log_partition"] == pytest.approx(50 + math.log(2), abs=1e-5)
    score = np.arange(0, 60, 12).mean()
    assert values["log_probability"] == pytest.approx(
        score - values["log_partition"], abs=1e-5
    )
    assert values["effective"] == pytest.approx((5 * 4) ** 2 / (5 * 10), abs=1e-4)
    low, high = values["log_partition_lo"], values["log_partition_hi"]
    assert 50 < low < values["log_partition"] < high < 50 + math.log(3)
    # examples are resampled as well
    assert values["log_probability_hi"] - values["log_probability_lo"] > 10
    assert result.arrays["log_weight"].shape == (10,)
    assert result.card["runs"] == 10


def test_temperatures_come_closer_towards_1():
    betas = log_probability.spaced(14_501)
    assert (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas[[500, 4500, 14_500]], [0.5, 0.9, 1.0], atol=1e-5)


def test_bad_input(make_env, make_source):
    with pytest.raises(UserError, match="runs must be at least 2, got 1"):
        run(make_env, make_source, runs=1)
    with pytest.raises(
        UserError, match=r"'log_score' must give \(4,\), gives \(4, 1\)"
    ):
        run(make_env, make_source, score=lambda v, b: log_score(v, b)[:, None])
    with pytest.raises(UserError, match="log_score is not finite"):
        run(make_env, make_source, score=lambda v, b: log_score(v, b) * float("nan"))
