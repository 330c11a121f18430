"""Accuracy by kind, baselines and blanked fields of a model that is known."""

import numpy as np
import pytest
from PIL import Image

from mmjax import evaluators
from mmjax.data import fields
from mmjax.errors import UserError

CONFIG = {"type": "vqa", "source": "test", "train": "train", "resamples": 50}
NAMES = ("no", "red", "yes")
COUNT = 24


def logits(variables, batch):
    """`what` is answered red; else yes where the first pixel is bright, no without."""
    bright_b = batch["image"].reshape(len(batch["image"]), -1)[:, 0] > 100
    what_b = (batch["tokens"] == 4).any(1)  # the fourth word that is read
    rank_b = np.where(what_b, 1, np.where(bright_b, 2, 0))
    return np.eye(3, dtype=np.float32)[rank_b]


def build(make_env, make_source, *, wrong=(), **more):
    bright = np.arange(COUNT) % 2
    asked = np.arange(COUNT) % 3 == 0  # a third ask for the colour
    label = np.where(asked, 1, 2 * bright)
    texts = [["what colour is it?"] if one else ["is it bright?"] for one in asked]
    vectors = np.repeat(bright[:, None] * 200, 12, 1)
    train = make_source(vectors, texts=texts, labels=label, class_names=NAMES)
    label = label.copy()
    label[list(wrong)] = -1
    test = make_source(vectors, texts=texts, labels=label, class_names=NAMES)
    other = make_source(vectors, texts=texts, class_names=("no", "yes"))
    env = make_env({"test": test, "train": train, "other": other}, logits=logits)
    env.tokenizer.encode(["is it bright? what"])  # their numbers, 1 to 4
    image = fields.build({"image": {"kind": "image", "size": 2}})["image"]
    text = fields.build({"tokens": {"kind": "text"}})["tokens"]
    text = text.bound(encoder=env.tokenizer)
    object.__setattr__(env, "fields", {"image": image, "tokens": text})
    return evaluators.build("x", CONFIG | more, env)


def test_what_a_model_rests_on(make_env, make_source, tmp_path):
    png = tmp_path / "sheet.png"
    types = {"yes_no": ("yes", "no"), "colour": ("red",)}
    how = {"types": types, "words": 1, "png": str(png), "shown": 3}
    values = build(make_env, make_source, **how).run({}).values
    assert values["accuracy"] == values["accuracy_yes_no"] == 1
    assert values["accuracy_colour"] == 1 and "accuracy_what" not in values
    assert values["majority"] == pytest.approx(1 / 3)
    # the commonest answer to each question: red, and half of the others
    assert values["prior"] == pytest.approx(1 / 3 + 1 / 3)
    assert values["without_image"] == pytest.approx(1 / 3 + 1 / 3)
    assert values["without_tokens"] == pytest.approx(2 / 3)
    assert values["gain_image"] == pytest.approx(1 / 3)
    assert values["gain_image_lo"] > 0
    assert np.asarray(Image.open(png)).shape[0] > 3 * 96


def test_a_question_without_an_answer_is_a_wrong_one(make_env, make_source):
    evaluator = build(make_env, make_source, wrong=(0, 1))
    result = evaluator.run({})
    assert result.values["accuracy"] == pytest.approx(22 / COUNT)
    assert result.card["counts"]["without_answer"] == 2


def test_refusals(make_env, make_source):
    with pytest.raises(UserError, match="types.size has 'big', which is no answer of"):
        build(make_env, make_source, types={"size": ("big",)})
    with pytest.raises(UserError, match="give both one list, by classes="):
        build(make_env, make_source, train="other")
