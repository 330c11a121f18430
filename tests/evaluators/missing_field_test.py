"""A field that is missing, inferred or zeros, by a model that needs both."""

import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.evaluators import missing_field

CONFIG = {"type": "missing_field", "source": "test", "train": "train", "l2": 1.0}


def features(variables, batch):
    """The class as the image and the tokens tell it; without tokens, 0.4 of it."""
    image_b = batch["image"].reshape(len(batch["image"]), -1)[:, 0] / 255.0
    if "tokens" not in batch:
        return np.stack([0.4 * image_b, 0 * image_b], 1).astype(np.float32)
    said_b = (batch["tokens"][:, 0] > 0) * image_b
    return np.stack([said_b, 1 - said_b], 1).astype(np.float32)


def sources(make_source, count=24):
    label = np.arange(count) % 2
    vectors = np.repeat(label[:, None] * 200, 12, 1)
    more = {"texts": [["word"]] * count, "labels": label, "class_names": ("a", "b")}
    return {name: make_source(vectors, **more) for name in ("test", "train")}


def build(make_env, make_source, **more):
    env = make_env(sources(make_source), features=features)
    object.__setattr__(env, "raw", env.raw | {"features": features})
    return evaluators.build("x", CONFIG | {"field": "tokens"} | more, env)


def test_three_ways(make_env, make_source):
    values = build(make_env, make_source).run({}).values
    assert values["whole"] == values["whole_top1"] == 1.0
    assert values["inferred"] == 1.0  # the order of the scores is kept
    assert values["zeros"] < 0.8 and values["gain"] > 0.2
    assert values["gain_lo"] > 0


def test_average_precision_by_hand():
    scores = np.array([[4.0], [3], [2], [1]])
    label, ones = np.array([1, 0, 1, 0]), np.ones(4)
    got = missing_field.mean_average_precision(scores, label, np.array([1]), ones)
    assert got == pytest.approx((1 + 2 / 3) / 2)
    twice = np.array([1.0, 2, 1, 1])
    got = missing_field.mean_average_precision(scores, label, np.array([1]), twice)
    assert got == pytest.approx((1 + 2 / 4) / 2)


def test_a_field_that_the_task_lacks(make_env, make_source):
    with pytest.raises(UserError, match="field is 'sound': name one of .* image, tok"):
        build(make_env, make_source, field="sound")
