"""Calls to another run: its own view, fixed batches, errors by name."""

import numpy as np
import pytest

from mmjax.data import tokenizers
from mmjax.data.fields import image
from mmjax.errors import UserError
from mmjax.evaluators import Env, Network
from mmjax.evaluators.common import judge_network


@pytest.fixture
def run():
    calls = []

    def features(batch):
        calls.append(batch["image"].shape)
        return batch["image"].reshape(len(batch["image"]), -1)[:, :3] / 255

    def embed_text(batch):
        calls.append(batch["tokens"].shape)
        return batch["tokens"][:, 1:3]

    made = Network(
        name="runs/x",
        task="fake",
        step=7,
        fingerprint="f",
        predict={"features": features, "embed_text": embed_text},
        tokenizer=tokenizers.build({"kind": "bytes", "context": 6}),
        image_cfg=image.Field(size=8, mode="squash"),
        batch_size=4,
    )
    object.__setattr__(made, "calls", calls)
    return made


def test_pictures_of_another_size_in_full_batches(run):
    levels = np.arange(10, dtype=np.uint8) * 20
    images = np.broadcast_to(levels[:, None, None, None], (10, 32, 32, 3))
    rows = judge_network.of_images(run, "features", images)
    np.testing.assert_allclose(rows, np.repeat(levels[:, None], 3, 1) / 255)
    assert run.calls == [(4, 8, 8, 3)] * 3


def test_texts_in_its_own_tokens(run):
    rows = judge_network.of_texts(run, "embed_text", ["ab", "cd", "ef", "gh", "ij"])
    letters = [[ord(c) + 1 for c in t] for t in ("ab", "cd", "ef", "gh", "ij")]
    assert rows.tolist() == letters and run.calls == [(4, 6)] * 2


def test_load_names_what_is_missing(run):
    def env(open_run):
        return Env({}, {}, None, None, (), 4, None, None, open_run)

    got = judge_network.load(env(lambda workdir: run), "runs/x", ["features"], "here")
    assert judge_network.describe(got) == {
        "task": "fake",
        "step": 7,
        "fingerprint": "f",
    }
    with pytest.raises(UserError, match="here: runs/x is a run of task fake.*'logits'"):
        judge_network.load(env(lambda workdir: run), "runs/x", ["logits"], "here")
    with pytest.raises(UserError, match="no other run can be opened"):
        judge_network.load(env(None), "runs/x", [], "here")
