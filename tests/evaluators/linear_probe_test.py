"""The probe against the pieces it is made of, and what it refuses."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import linear_probe
from mmjax.evaluators.common import probing
from mmjax.evaluators.probe import logistic

NAMES = ("x", "y", "z")


def fit(features_nd, labels_n, *, l2=1.0):
    return logistic.Problem(features_nd, labels_n).path([l2])[0]


def vectors(n, seed):
    """Images (n, 12) of three overlapping classes, and labels."""
    rng = np.random.default_rng(seed)
    labels_n = np.arange(n) % 3
    centres_cd = np.random.default_rng(9).integers(60, 200, (3, 12))
    noisy_nd = centres_cd[labels_n] + rng.normal(scale=60, size=(n, 12))
    return np.clip(noisy_nd, 0, 255).astype(np.uint8), labels_n


@pytest.fixture
def sources(make_source):
    made = {}
    for seed, (split, n) in enumerate((("train", 60), ("val", 30), ("test", 45))):
        images, labels = vectors(n, seed)
        made[split] = make_source(images, labels=labels, class_names=NAMES)
    return made


@pytest.fixture
def weights():
    matrix = np.random.default_rng(3).normal(size=(12, 8)) / 255
    return {"image": matrix.astype(np.float32), "text": np.ones((9, 8), np.float32)}


def config(sources, **more):
    splits = {"source": sources["test"], "train": sources["train"]}
    return {**splits, "val": sources["val"], "features": "embed_image", **more}


def features(source, weights):
    return source.vectors.astype(np.float32) @ weights["image"]


def test_refit_on_train_and_val(make_env, sources, weights):
    env = make_env()
    evaluator = linear_probe.Evaluator(config(sources), env)
    evaluator.check(jax.eval_shape(lambda: weights))
    assert not env.shapes  # nothing computed
    got = evaluator.run(weights)
    parts = [sources["train"], sources["val"]]
    both = np.concatenate([features(s, weights) for s in parts])
    labels = np.concatenate([s.labels for s in parts])
    l2 = got.values["l2"]
    probe = fit(both, labels, l2=l2)
    expected = probe.predict(features(sources["test"], weights))
    np.testing.assert_array_equal(got.arrays["prediction"], expected)
    truth = sources["test"].labels
    assert got.values["top1"] == pytest.approx((expected == truth).mean())
    assert 0.5 < got.values["top1_lo"] <= got.values["top1"] <= got.values["top1_hi"]
    per_class = [(expected == truth)[truth == c].mean() for c in range(3)]
    assert got.values["mean_per_class"] == pytest.approx(np.mean(per_class))
    at = got.arrays["l2"].tolist().index(l2)
    assert got.arrays["val_accuracy"][at] == got.arrays["val_accuracy"].max()
    assert len(got.arrays["l2"]) <= 15
    assert all(isinstance(v, float) for v in got.values.values())
    assert got.card["counts"]["unconverged"] == 0
    assert set(got.card["splits"]) == {"train", "val"}
    again = linear_probe.Evaluator(config(sources, batch_size=7), make_env())
    assert again.run(weights).values == pytest.approx(got.values, rel=1e-4)
    assert again.run(weights).card["id"] == got.card["id"]


def test_a_fixed_l2_and_a_share(make_env, sources, weights):
    fixed = config(sources, val=None, l2=3.0)
    got = linear_probe.Evaluator(fixed, make_env()).run(weights)
    assert got.values["l2"] == 3.0 and "val_top1" not in got.values
    shared = config(sources, val=0.2)
    got = linear_probe.Evaluator(shared, make_env()).run(weights)
    assert got.card["splits"]["val"] == {"share_of_train": 0.2, "seed": 0}
    assert got.values["val_top1"] * 12 == pytest.approx(
        round(got.values["val_top1"] * 12)
    )


def test_a_share_is_stratified():
    labels = np.repeat([0, 1, 2], [10, 4, 21])
    taken = probing.held_out(labels, 0.25, seed=1)
    np.testing.assert_array_equal(np.bincount(labels[taken]), [2, 1, 5])
    assert (taken != probing.held_out(labels, 0.25, seed=2)).any()


@pytest.mark.parametrize(
    "more, words",
    [
        ({"val": None}, "'val' is missing, by which l2 is chosen"),
        ({"train": None}, "'train' is missing"),
        ({"val": 1.5}, "val 1.5 must lie between 0 and 1"),
        ({"l2": 0.0}, "l2 must be positive"),
        ({"search": "grid"}, "'coarse_to_fine', 'full'"),
    ],
)
def test_refuses_configs(make_env, sources, more, words):
    with pytest.raises(UserError, match=words):
        linear_probe.Evaluator(config(sources, **more), make_env())


def test_refuses_splits(make_env, make_source, sources, weights):
    def with_train(names, labels=sources["train"].labels):
        images = sources["train"].vectors
        odd = make_source(images, labels=labels, class_names=names)
        return linear_probe.Evaluator(config(sources, train=odd), make_env())

    with pytest.raises(UserError, match="label 1 is 'w' in train and 'y' in the test"):
        with_train(("x", "w", "z"))
    with pytest.raises(UserError, match="4 classes in train and 3 in the test"):
        with_train((*NAMES, "w"))
    with pytest.raises(UserError, match="labels 0 and 2 are both called 'x'"):
        with_train(("x", "y", "x"))
    with pytest.raises(UserError, match="has label 7, but there are 3 class names"):
        with_train(NAMES, np.full(60, 7)).run(weights)
    with pytest.raises(UserError, match="carry no label"):
        with_train(NAMES, None).check(jax.eval_shape(lambda: weights))
    env = make_env()
    evaluator = linear_probe.Evaluator(config(sources, features="featres"), env)
    with pytest.raises(UserError, match="no predict function 'featres'"):
        evaluator.check(jax.eval_shape(lambda: weights))
    with pytest.raises(UserError, match="share of 0.01 of 60 training images is none"):
        linear_probe.Evaluator(config(sources, val=0.01), env).run(weights)
    weights["image"][:] = np.nan
    with pytest.raises(UserError, match="NaN or Inf in 45 of 45"):
        linear_probe.Evaluator(config(sources), env).run(weights)
