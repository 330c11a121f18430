"""Errors beside their baselines by brute force, and the nearest window."""

import numpy as np
import pytest
from PIL import Image

from mmjax import evaluators
from mmjax.data import fields
from mmjax.errors import UserError
from mmjax.evaluators import translation

CONFIG = {"type": "translation", "source": "test", "train": "train", "resamples": 50}
LENGTH, WIDTH = 5, 4


class Source:
    """Records of numbers from a seed; label 0 or 1 moves the target."""

    class_names = ("a", "b")

    def __init__(self, name, seed, count=6):
        self.name, self.count, rng = name, count, np.random.default_rng(seed)
        self.rows = []
        for i in range(count):
            t = 3 + i % 3
            target = rng.normal(size=(t, WIDTH)) + 3 * (i % 2)
            self.rows.append((rng.normal(size=(2 * t, 2)), target, i % 2))

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {"text": [], "key": str(i)}

    def fingerprint(self):
        return self.name


def eval_batches(source, names, *, batch_size):
    while not hasattr(source, "rows"):
        source = source.source
    for start in range(0, len(source), batch_size):
        index = np.arange(start, start + batch_size)
        valid = index < len(source)
        batch = {"_mask": valid * 1.0, "_index": index, "_broken": 0 * index}
        sizes = {"source": (2 * LENGTH, 2), "target": (LENGTH, WIDTH)}
        for k, (name, size) in enumerate(sizes.items()):
            batch[name] = np.zeros((batch_size, *size), np.float32)
            batch[f"{name}_mask"] = np.zeros((batch_size, size[0]), bool)
            for b in np.flatnonzero(valid):
                rows = source.rows[index[b]][k]
                batch[name][b, : len(rows)] = rows
                batch[f"{name}_mask"][b, : len(rows)] = True
        label = [source.rows[i][2] if i < len(source) else 0 for i in index]
        yield batch | {"label": np.array(label, np.int32)}


def translated(variables, batch):
    return 0.5 * batch["target"]


def build(make_env, **more):
    sources = {"test": Source("test", 0), "train": Source("train", 1)}
    env = make_env(sources, translated=translated)
    object.__setattr__(env, "eval_batches", eval_batches)
    object.__setattr__(env, "reads", ("source", "target", "label?"))
    kind = fields.build({"target": {"kind": "sequence", "length": LENGTH}})
    object.__setattr__(env, "fields", kind)
    return sources, evaluators.build("x", CONFIG | more, env)


def test_errors_and_baselines_by_hand(make_env, tmp_path):
    png = tmp_path / "lips.png"
    sources, evaluator = build(make_env, png=str(png), frames=(2, 2), shown=2, reach=1)
    values = evaluator.run({}).values
    train, test = sources["train"].rows, sources["test"].rows
    mean = np.concatenate([t for _, t, _ in train]).mean(0)
    own = [np.concatenate([t for _, t, k in train if k == n]).mean(0) for n in (0, 1)]
    base = np.mean([np.square(t - mean).mean() for _, t, _ in test])
    error = np.mean([np.square(0.5 * t).mean() for _, t, _ in test])
    label = np.mean([np.square(t - own[k]).mean() for _, t, k in test])
    assert values["mean_error"] == pytest.approx(base, rel=1e-4)
    assert values["error"] == pytest.approx(error / base, rel=1e-4)
    assert values["label_error"] == pytest.approx(label / base, rel=1e-4)
    beats = values["label_error"] - values["error"]
    assert values["beats_label"] == pytest.approx(beats)
    assert values["motion"] == pytest.approx(1, abs=1e-5)
    assert abs(values["nearest_motion"]) < 0.7
    assert values["nearest_error"] > values["label_error"]  # of noise, twice
    assert np.asarray(Image.open(png)).shape[0] > 6 * 60


def test_nearest_is_the_nearest_window():
    rng = np.random.default_rng(3)
    known = [
        translation.Series(rng.normal(size=(8, 2)), rng.normal(size=(4, 3)), 0)
        for _ in range(5)
    ]
    (same,) = translation.nearest(known, [known[2]], reach=2)
    np.testing.assert_array_equal(same, known[2].target)
    asked = translation.Series(rng.normal(size=(6, 2)), np.zeros((3, 3)), 0)
    (found,) = translation.nearest(known, [asked], reach=1)

    def window(source, step):
        padded = np.pad(source, ((1, 1), (0, 0)))
        return padded[2 * step + 1 : 2 * step + 4]

    for step in range(3):
        apart = [
            (np.square(window(asked.source, step) - window(k.source, t)).sum(), k, t)
            for k in known
            for t in range(4)
        ]
        _, best, at = min(apart, key=lambda one: one[0])
        np.testing.assert_array_equal(found[step], best.target[at])


def test_correlation_is_blind_to_the_mean_and_the_size():
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert translation.correlation(2 * x + 5, x) == pytest.approx(1)
    assert translation.correlation(-x, x) == pytest.approx(-1)
    assert translation.correlation(np.ones((6, 3)), x) == 0


def test_a_label_that_train_lacks(make_env):
    sources, evaluator = build(make_env)
    rows = sources["train"].rows
    rows[:] = [(source, target, 0) for source, target, _ in rows]
    with pytest.raises(UserError, match="train has no record of label 1"):
        evaluator.run({})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train": None}, "'train' is missing"),
        ({"png": "x.png"}, "the sheet needs height, width"),
    ],
)
def test_refusals(make_env, more, message):
    with pytest.raises(UserError, match=message):
        build(make_env, **more)
