"""Whose runs caption images, and what else they need."""

import types

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference import caption
from mmjax.tasks import base


def run(task=None, name="caption"):
    config = types.SimpleNamespace(task=types.SimpleNamespace(name=name))
    raw = {} if task is None else task.predict()
    parts = types.SimpleNamespace(raw=raw)
    words = types.SimpleNamespace(vocab_size=30)
    about = {"config": config, "parts": parts, "task": task, "tokenizer": words}
    return types.SimpleNamespace(workdir=f"runs/{name}", **about)


def task(**more):
    fields = {"name": "caption", "decoder": {"kind": "lstm"}, "context": 5}
    return base.build(fields | {"vocab_size": 30} | more)


def test_a_run_without_a_caption_head():
    message = "runs/clip holds a 'clip' model, which has no caption head: give"
    with pytest.raises(UserError, match=message):
        caption.Captioner(run(name="clip"))


def test_features_need_their_network_and_images_need_none():
    with pytest.raises(UserError, match="reads features, .* name the run that made"):
        caption.Captioner(run(task()))
    seeing = task(image={"kind": "vit", "width": 8, "patch": 4}, image_size=8)
    with pytest.raises(UserError, match="reads image, .* is runs/lite0: leave it out"):
        caption.Captioner(run(seeing), network=run(name="lite0"))


def test_more_beams_than_words():
    with pytest.raises(UserError, match="k is 31 beams, and the vocabulary has 30 ids"):
        caption.Captioner(run(task()), {"k": 31})
    with pytest.raises(UserError, match="unknown key 'beams'"):
        caption.Captioner(run(task()), {"beams": 3})


def test_images_in_memory_are_a_source():
    images = caption._Images([np.zeros((2, 3, 3), np.uint8)])
    assert len(images) == 1 and images[0]["image"].shape == (2, 3, 3)
