"""Candidates come out the same however they are called for, in calls of one shape."""

import hashlib

import numpy as np
import pytest

from mmjax.data import tokenizers
from mmjax.sampling import calls


def recorder():
    """A "sample" whose image says all it was called with, and the calls' shapes."""
    shapes = set()

    def call(batch):
        shapes.add(tuple((k, v.shape, v.dtype.name) for k, v in sorted(batch.items())))
        seed_r1, number_rc = batch["seed"][:, None], batch["candidate"]
        first_r1 = batch["tokens"][:, :1]
        image = np.stack(np.broadcast_arrays(seed_r1, number_rc, first_r1), axis=-1)[
            :, :, None
        ]
        return {"image": image, "log_prob": -1.0 * number_rc}

    return call, shapes


def encoded(count):
    tokens = np.arange(count * 5, dtype=np.int32).reshape(count, 5)
    seed = np.arange(count, dtype=np.uint32) + np.uint32(2**31)
    return {"tokens": tokens, "tokens_mask": tokens > 0, "seed": seed}


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("size", [1, 4, 7, 64])
def test_every_size_draws_the_same(k, size, devices):
    call, shapes = recorder()
    ticks = []
    more = dict(k=k, size=size, devices=devices)
    parts = []
    more |= {"tick": ticks.append, "seen": parts.append}
    got = calls.draw(call, encoded(6), **more)
    assert [len(part["image"]) for part in parts] == ticks
    told = np.concatenate([part["image"] for part in parts])
    np.testing.assert_array_equal(told, got["image"].reshape(told.shape))
    assert sum(ticks) == 6 * k
    assert len(shapes) == 1  # one compile
    [shape] = shapes
    by_name = {name: (dims, dtype) for name, dims, dtype in shape}
    (rows, columns), dtype = by_name["candidate"]
    assert rows * columns <= max(size, devices) and dtype == "int32"
    assert rows % devices == 0
    assert by_name["seed"] == ((rows,), "uint32")
    assert got["image"].shape == (6, k, 1, 3) and got["log_prob"].shape == (6, k)
    for p in range(6):
        for c in range(k):
            assert got["image"][p, c, 0].tolist() == [2**31 + p, c, 5 * p]
            assert got["log_prob"][p, c] == -c


@pytest.mark.parametrize(
    "p, k, size, devices",
    [(1, 512, 64, 1), (3, 5, 64, 1), (1, 10, 64, 4), (7, 3, 8, 4), (2, 9, 4, 2)],
)
def test_calls_draw_every_candidate_once(p, k, size, devices):
    seen = []
    rows = encoded(p)
    for batch, real in calls.batches(rows, k=k, size=size, devices=devices):
        candidate_uc = batch["candidate"]
        assert len(candidate_uc) % devices == 0
        assert candidate_uc.size <= max(size, devices)
        for seed, candidate_c in zip(
            batch["seed"][:real], candidate_uc[:real], strict=True
        ):
            seen += [(int(seed), int(c)) for c in candidate_c if c < k]
    assert seen == [(2**31 + i, c) for i in range(p) for c in range(k)]


def test_calls_are_full_and_no_larger_than_needed():
    def shape(p, k, size):
        batch, _ = next(calls.batches(encoded(p), k=k, size=size))
        return batch["candidate"].shape

    assert shape(200, 64, 256) == (4, 64)
    assert shape(3, 1, 256) == (3, 1)
    assert shape(200, 512, 256) == (1, 256)
    assert shape(200, 300, 256) == (1, 150)


def test_a_seed_follows_from_the_prompt_alone():
    tokenizer = tokenizers.build({"kind": "bytes", "context": 20})
    rows = calls.conditions(["a red star", "a moon"], tokenizer, seed=3)
    assert rows["tokens"].shape == rows["tokens_mask"].shape == (2, 20)
    # what was drawn with earlier versions is drawn again
    text = hashlib.sha256(b"3:a red star").digest()[:4]
    assert rows["seed"][0] == int.from_bytes(text, "little")
    turned = calls.conditions(["a moon", "a red star"], tokenizer, seed=3)
    np.testing.assert_array_equal(turned["seed"], rows["seed"][::-1])
    other = calls.conditions(["a red star"], tokenizer, seed=4)
    assert other["seed"][0] not in rows["seed"]
    labels = calls.conditions([4, 7, 4], None, seed=3)
    assert labels["label"].tolist() == [4, 7, 4] and labels["label"].dtype == np.int32
    assert labels["seed"][0] == labels["seed"][2] != labels["seed"][1]
