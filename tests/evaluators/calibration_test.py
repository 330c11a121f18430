"""Calibration against loops over bins and a grid of temperatures."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import calibration

NAMES = tuple("abcdefg")
SCALE = 8.0


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ece_by_hand(chance_nc, label_n, bins):
    sure, right = chance_nc.max(1), chance_nc.argmax(1) == label_n
    total = 0.0
    for k in range(bins):
        inside = (sure > k / bins) & (sure <= (k + 1) / bins)
        if inside.any():
            gap = abs(right[inside].mean() - sure[inside].mean())
            total += inside.mean() * gap
    return total


def example(make_source, seed=0, n=60):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(NAMES), n)
    vectors = rng.integers(0, 255, (n, 12))
    return make_source(vectors, labels=labels, class_names=NAMES)


@pytest.fixture
def variables():
    rng = np.random.default_rng(9)
    found = {"image": rng.normal(size=(12, 5)), "text": rng.normal(size=(40, 5))}
    return {k: np.float32(v) for k, v in found.items()}


def logits(source, variables, words):
    """(n, c), one at a time."""
    rows = []
    for vector in source.vectors:
        image = vector.astype(np.float32) @ variables["image"]
        texts = [
            variables["text"][words["of"]] + variables["text"][words[c]] for c in NAMES
        ]
        cosines = [image @ t / np.linalg.norm(image) / np.linalg.norm(t) for t in texts]
        rows.append(SCALE * np.array(cosines))
    return np.array(rows)


def scale(variables, batch):
    return np.float32(SCALE), np.float32(0)


def test_numbers_match_a_loop(make_env, make_source, variables):
    source, val = example(make_source), example(make_source, seed=1)
    env = make_env(scale=scale)
    cfg = {"source": source, "val": val, "templates": ["of {}"], "bins": 10}
    got = calibration.Evaluator(dict(cfg, resamples=20), env).run(variables).values
    words = env.tokenizer.words
    logits_nc, val_nc = logits(source, variables, words), logits(val, variables, words)
    chance_nc = softmax(logits_nc)
    n = np.arange(len(source))
    assert got["top1"] == (chance_nc.argmax(1) == source.labels).mean()
    assert got["confidence"] == pytest.approx(chance_nc.max(1).mean(), rel=1e-5)
    assert got["nll"] == pytest.approx(
        -np.log(chance_nc[n, source.labels]).mean(), rel=1e-5
    )
    want = ece_by_hand(chance_nc, source.labels, 10)
    assert got["ece"] == pytest.approx(want, rel=1e-4)

    def val_loss(temperature):
        return -np.log(softmax(val_nc / temperature)[n, val.labels]).mean()

    grid = np.geomspace(0.1, 900, 4000)
    best = grid[np.argmin([val_loss(t) for t in grid])]
    assert got["temperature"] == pytest.approx(best, rel=0.01)
    fitted = softmax(logits_nc / got["temperature"])
    assert got["ece_fitted"] == pytest.approx(
        ece_by_hand(fitted, source.labels, 10), rel=1e-3, abs=1e-6
    )


def test_a_model_as_sure_as_it_is_right_has_no_error():
    rng = np.random.default_rng(0)
    chance_nc = softmax(3 * rng.normal(size=(200_000, 4)))
    label_n = (rng.random((200_000, 1)) > chance_nc.cumsum(1)).sum(1).clip(0, 3)
    hit_n = chance_nc.argmax(1) == label_n
    sure_n, ones = chance_nc.max(1), np.ones(len(hit_n))
    assert calibration.ece(hit_n, sure_n, ones, 15) < 0.01
    assert calibration.ece(hit_n, sure_n**0.5, ones, 15) > 0.05
    doubled = calibration.fit_temperature(2 * np.log(chance_nc), label_n)
    assert doubled == pytest.approx(2, rel=0.02)


def test_without_val_nothing_is_fitted(make_env, make_source, variables):
    source = example(make_source)
    got = calibration.Evaluator(
        {"source": source, "templates": ["of {}"], "resamples": 5},
        make_env(scale=scale),
    ).run(variables)
    assert "temperature" not in got.values and "ece" in got.values
    assert got.arrays["bin_count"].sum() == len(source)
    figure = calibration.figure(got.values, got.arrays, "")
    assert len(figure.axes[0].patches) == 15


def test_refuses_a_val_of_other_classes(make_env, make_source):
    source = example(make_source)
    other = make_source(source.vectors, labels=source.labels, class_names=tuple("xyz"))
    with pytest.raises(UserError, match="val has 3 classes and the source 7"):
        calibration.Evaluator({"source": source, "val": other}, make_env())
