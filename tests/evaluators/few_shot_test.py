"""Few shots against the pieces, the intervals, and what is refused."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import few_shot
from mmjax.evaluators.probe import heads, logistic, shots
from mmjax.metrics import embeddings

NAMES = ("x", "y", "z")


def fit(features_nd, labels_n, *, l2=1.0):
    return logistic.Problem(features_nd, labels_n).path([l2])[0]


def image_source(make_source, n, seed):
    rng = np.random.default_rng(seed)
    labels_n = np.arange(n) % 3
    centres_cd = np.random.default_rng(9).integers(60, 200, (3, 12))
    noisy_nd = centres_cd[labels_n] + rng.normal(scale=60, size=(n, 12))
    images = np.clip(noisy_nd, 0, 255).astype(np.uint8)
    return make_source(images, labels=labels_n, class_names=NAMES)


@pytest.fixture
def sources(make_source):
    return {
        s: image_source(make_source, n, n) for s, n in (("train", 24), ("test", 30))
    }


@pytest.fixture
def weights():
    rng = np.random.default_rng(3)
    image = rng.normal(size=(12, 8)) / 255
    return jax.tree.map(np.float32, {"image": image, "text": rng.normal(size=(9, 8))})


def config(sources, **more):
    splits = {"source": sources["test"], "train": sources["train"]}
    base = {"features": "embed_image", "l2": 0.1, "templates": ["{}"]}
    return {**splits, **base, "shots": (1, 4), "repeats": 3, "resamples": 200, **more}


def test_matches_fits_by_hand(make_env, sources, weights):
    evaluator = few_shot.Evaluator(config(sources), make_env())
    evaluator.check(jax.eval_shape(lambda: weights))
    got = evaluator.run(weights)
    features = {
        s: source.vectors.astype(np.float32) @ weights["image"]
        for s, source in sources.items()
    }
    labels, truth = sources["train"].labels, sources["test"].labels
    for column, k in enumerate((1, 4)):
        right = []
        for seed in range(3):
            rows = shots.draw(labels, k, seed=seed, names="xyz"[: labels.max() + 1])
            fitted = fit(features["train"][rows], labels[rows], l2=0.1)
            right.append((fitted.predict(features["test"]) == truth).mean())
        np.testing.assert_allclose(got.arrays["top1"][:, column], right)
        assert got.values[f"shot_{k}"] == pytest.approx(np.mean(right))
    np.testing.assert_array_equal(got.arrays["shots"], [1, 4, 8])
    curve = [got.values[k] for k in ("shot_1", "shot_4", "shot_full")]
    goal = got.values["zero_shot"]
    worth = shots.worth([1, 4, 8], curve, goal)
    assert got.values["zero_shot_worth"] == worth[0]
    assert got.values["zero_shot_worth_bound"] == worth[1]
    for name in ("shot_1", "shot_4", "shot_full", "zero_shot", "zero_shot_worth"):
        low, high = got.values[f"{name}_lo"], got.values[f"{name}_hi"]
        assert low <= got.values[name] <= high
    assert all(isinstance(v, float) for v in got.values.values())
    again = few_shot.Evaluator(config(sources, batch_size=7), make_env()).run(weights)
    assert again.values == pytest.approx(got.values)


def test_heads_that_read_texts_take_the_same_draws(make_env, sources, weights):
    how = {"head": "tip_adapter", "l2": None, "val": 0.25}
    env = make_env(scale=lambda variables, batch: (np.float32(10), np.float32(0)))
    evaluator = few_shot.Evaluator(config(sources, **how), env)
    evaluator.check(jax.eval_shape(lambda: weights))
    got, splits = evaluator.run(weights), evaluator.splits(weights)
    train, val, test = (
        splits[name]._replace(features_nd=embeddings.unit(splits[name].features_nd))
        for name in ("train", "val", "test")
    )
    text_cd = evaluator._zero_shot.class_embeddings(weights)
    right = []
    for seed in range(3):
        rows = shots.draw(train.label_n, 1, seed=seed, names=NAMES)
        tried = heads.tip_adapter(
            train.features_nd[rows], train.label_n[rows], text_cd, 10.0
        )
        head = heads.best(tried, val.features_nd, val.label_n)
        right.append((head(test.features_nd).argmax(1) == test.label_n).mean())
    assert got.values["shot_1"] == pytest.approx(np.mean(right))
    assert got.card["head"] == "tip_adapter"
    with pytest.raises(UserError, match="head tip_adapter needs a task that has 'sc"):
        few_shot.Evaluator(config(sources, **how), make_env()).check(
            jax.eval_shape(lambda: weights)
        )


def test_intervals_hold_the_spread_of_repeats():
    steady = np.tile(np.arange(100) < 50, (4, 1)).astype(float)
    wild = np.repeat([[0.0], [1.0], [0.0], [1.0]], 100, axis=1)
    draw = {"resamples": 300, "seed": 0}
    values = few_shot.summary(["a", "b"], [1, 2], [steady, wild], None, **draw)
    assert values["a"] == values["b"] == 0.5
    assert (
        values["a_hi"] - values["a_lo"] < 0.25
    )  # test examples alone: 2 x 1.96 x 0.05
    assert values["b_hi"] - values["b_lo"] > 0.7  # four repeats that disagree


def test_without_texts(make_env, sources, weights):
    cfg = config(sources, zero_shot=False, full=False, l2=None, val=0.5)
    cfg["shots"] = (1, 2)
    got = few_shot.Evaluator(cfg, make_env(tokenizer=False)).run(weights)
    assert {k.removesuffix("_lo").removesuffix("_hi") for k in got.values} == {
        "shot_1",
        "shot_2",
    }
    assert got.card["tokenizer"] is None


@pytest.mark.parametrize(
    "more, words",
    [
        ({"shots": (4, 1)}, "must be positive and rising"),
        ({"shots": ()}, "must be positive and rising"),
        ({"repeats": 0}, "must be at least 1, got 0"),
        ({"l2": None}, "'val' is missing"),
    ],
)
def test_refuses_configs(make_env, sources, more, words):
    with pytest.raises(UserError, match=words):
        few_shot.Evaluator(config(sources, **more), make_env())


def test_a_class_with_fewer_images_than_shots(make_env, sources, weights):
    evaluator = few_shot.Evaluator(config(sources, shots=(1, 16)), make_env())
    with pytest.raises(UserError, match=r"class 0 \('x'\) has 8 images, fewer than 16"):
        evaluator.run(weights)


def with_ends(name, value):
    return {name: value, f"{name}_lo": value - 0.1, f"{name}_hi": value + 0.05}


def test_curves_read_back_from_the_axes(tmp_path):
    values = with_ends("shot_1", 0.2) | with_ends("shot_16", 0.4)
    values |= with_ends("shot_full", 0.6) | with_ends("zero_shot", 0.3)
    values |= with_ends("zero_shot_worth", 4.0) | {"zero_shot_worth_bound": 0.0}
    result = values, {"shots": np.asarray([1.0, 16, 100])}
    figure = few_shot.panels({"a": result, "b": result}, "t")
    for axes in figure.axes:
        curve = axes.lines[0]
        assert curve.get_xdata() == pytest.approx([1, 16, 100])
        assert curve.get_ydata() == pytest.approx([20, 40, 60])
        assert "worth 4" in axes.get_xlabel()
    figure.savefig(tmp_path / "x.png", dpi=80)
