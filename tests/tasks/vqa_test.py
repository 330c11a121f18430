"""Answers by hand in numpy, sets of images, rows without an answer, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.state import Ctx
from mmjax.tasks import base

SIZES = {"answers": 3, "image_size": 4, "vocab_size": 9, "context": 5, "width": 6}
POOL = {"kind": "conv_pool", "widths": (2,)}


def make(**more):
    question = {"kind": "cbow", "width": 4}
    parts = {"name": "vqa", "image": POOL, "question": question}
    return base.build(parts | SIZES | more)


def rows(count=3, several=()):
    rng = np.random.default_rng(0)
    shape = (count, *several, 4, 4, 3)
    return {
        "image": rng.integers(0, 256, shape).astype(np.uint8),
        "tokens": rng.integers(0, 9, (count, 5)).astype(np.int32),
        "tokens_mask": np.arange(5) < np.array([[5], [3], [4]])[:count],
        "label": np.array([0, 2, -1], np.int32)[:count],
    }


def ctx():
    return Ctx(rng=jax.random.key(7), step=jnp.int32(0), train=True)


def drawn(task, batch):
    """Variables of which nothing is zero."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def answers(task):
    """f(variables, batch) -> logits, compiled."""
    return jax.jit(lambda v, batch: task.predict()["logits"](v, batch, ctx()))


def everything(task):
    """f(variables, batch) -> (logits, loss, metrics), compiled."""

    def run(variables, batch):
        loss, (_, metrics) = task.loss(variables, batch, ctx())
        return task.predict()["logits"](variables, batch, ctx()), loss, metrics

    return jax.jit(run)


def pooled(p, x_bhwc):
    """A 3x3 convolution with zeros around, and the maximum of 2x2: (b, t, c)."""
    padded = np.pad(x_bhwc, [(0, 0), (1, 1), (1, 1), (0, 0)])
    y = sum(
        padded[:, i : i + 4, j : j + 4] @ p["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    )
    y = (y + p["bias"]).reshape(len(y), 2, 2, 2, 2, -1)
    return y.max((2, 4)).reshape(len(y), 4, -1)


def normal(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def by_hand(params, batch, join):
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name].get("bias", 0.0)

    weight = batch["tokens_mask"][..., None]
    words = p["question"]["token_embedding"][batch["tokens"]] * weight
    asked = normal(words.sum(1) / weight.sum(1)) * p["question_norm"]["scale"]
    question = np.tanh(dense("question_proj", asked + p["question_norm"]["bias"]))
    grid = pooled(p["image"]["conv_0"], (batch["image"] / 255 - 0.5) / 0.25)
    if join == "attention":
        places = np.tanh(dense("image_proj", grid))
        asked = dense("attend_question", question)[:, None]
        score = dense("attend_score", np.tanh(dense("attend_image", places) + asked))
        share = np.exp(score - score.max(1, keepdims=True))
        joined = (share / share.sum(1, keepdims=True) * places).sum(1) + question
    else:
        image = np.tanh(dense("image_proj", grid.reshape(len(grid), -1)))
        both = np.concatenate([image, question], 1)
        joined = image * question if join == "product" else both
    return dense("answer", np.tanh(dense("hidden", joined)))


@pytest.mark.parametrize("join", ["product", "concat", "attention"])
def test_answers_by_hand(join):
    task, batch = make(join=join), rows()
    variables = drawn(task, batch)
    want = by_hand(variables.params, batch, join)
    got, loss, metrics = everything(task)(variables, batch)
    np.testing.assert_allclose(got, want, atol=1e-3)
    log = want - np.log(np.exp(want).sum(1, keepdims=True))
    assert loss == pytest.approx(-(log[0, 0] + log[1, 2]) / 3, abs=1e-3)
    hits = (want.argmax(1) == batch["label"]).mean()
    assert metrics["accuracy"] == pytest.approx(hits)


def test_several_images_are_a_set():
    task, batch = make(), rows(several=(3,))
    batch["image_mask"] = np.array([[True] * 3, [True, True, False], [True] * 3])
    variables = drawn(task, batch)
    logits = answers(task)
    want = logits(variables, batch)
    order = [1, 0, 2]
    turned = batch | {k: batch[k][:, order] for k in ("image", "image_mask")}
    np.testing.assert_allclose(logits(variables, turned), want, atol=1e-5)
    batch["image"][1, 2] = 0  # where the mask is False
    np.testing.assert_allclose(logits(variables, batch)[1], want[1], atol=1e-5)
    batch["image"][0, 2] = 0
    assert np.abs(logits(variables, batch)[0] - want[0]).max() > 0.01


def test_an_lstm_reads_no_padding():
    task = make(question={"kind": "lstm", "width": 4})
    batch = rows()
    variables, logits = drawn(task, batch), answers(task)
    want = logits(variables, batch)
    other = np.where(batch["tokens_mask"], batch["tokens"], 8)
    got = logits(variables, batch | {"tokens": other})
    np.testing.assert_array_equal(got, want)
    got = logits(variables, batch | {"tokens": other[:, [1, 0, 2, 3, 4]]})
    assert np.abs(got - want).max() > 0.01  # their order counts


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"answers": 1}, "answers is 1: give 2 or more"),
        ({"join": "sum"}, "join is 'sum': use product, concat, attention"),
    ],
)
def test_refusals(more, message):
    with pytest.raises(UserError, match=message):
        make(**more)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("image", {"shape": (8, 8, 3)}, "image.size is 8, and the model takes images"),
        ("image", {"shape": (2, 8, 8, 3)}, "image.size is 8"),
        ("tokens", {"vocab_size": 12}, "12 ids .*the model 9"),
        ("label", {"class_names": tuple("abcd")}, "answers is 3, and the data have 4"),
    ],
)
def test_data_that_do_not_fit(field, change, message):
    spec = {
        "image": {"kind": "image", "shape": (4, 4, 3)},
        "tokens": {"kind": "text", "shape": (5,), "vocab_size": 9},
        "label": {"kind": "label", "shape": (), "class_names": ("a", "b")},
    }
    make().check(spec)
    with pytest.raises(UserError, match=message):
        make().check(spec | {field: spec[field] | change})
