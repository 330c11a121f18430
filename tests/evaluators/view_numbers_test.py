"""Hashing, retrieval between views, co-training and grounding, on one run's data."""

import jax
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.metrics import average_precision, co_training, hashing
from mmjax.train import config as config_lib
from mmjax.train import evaluate, setup


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(env, variables, arrays by part, spec of a part): four classes in two views."""
    folder, arrays = tmp_path_factory.mktemp("views"), {}
    mix = [np.random.default_rng(i).normal(size=(6, d)) for i, d in enumerate((10, 9))]
    for part, n in (("train", 200), ("test", 80)):
        rng = np.random.default_rng(n)
        label = np.arange(n) % 4
        cause = rng.normal(size=(n, 6))
        cause[:, :4] += 2 * np.eye(4)[label]
        a, b = (
            np.float32(cause @ m + 0.2 * rng.normal(size=(n, len(m.T)))) for m in mix
        )
        arrays[part] = {"photo": a, "words": b, "label": label}
        np.savez(
            folder / f"{part}.npz", **arrays[part], class_names=np.array(list("wxyz"))
        )
    given = ["data.train=" + f"npz:{folder}/train.npz?columns=photo,words,label"]
    config = config_lib.load("hashing:tiny", [f"--config.{text}" for text in given])
    config.data.fields = {
        "photo": {"kind": "vector", "width": 10},
        "words": {"kind": "vector", "width": 9},
        "label": {"kind": "label"},
    }
    config.evals = {}
    parts = setup.build(config)
    variables = parts.task.init(jax.random.key(0), parts.example())
    columns = "columns=photo,words,label"
    env = evaluate.env(parts)
    return env, variables, arrays, lambda part: f"npz:{folder}/{part}.npz?{columns}"


def evaluated(run, kind, **cfg):
    env, variables, _, spec = run
    cfg = {"type": kind, "source": spec("test"), "train": spec("train"), **cfg}
    evaluator = evaluators.build("x", {"resamples": 20, **cfg}, env, "config.evals.x")
    evaluator.check(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    )
    return evaluator.run(variables)


def pair(run, part):
    return [run[2][part][view] for view in ("photo", "words")]


def mean_ap(distance, relevant):
    lines = zip(distance, relevant, strict=True)
    return np.mean([average_precision.average_precision(*line) for line in lines])


def test_hashing_is_its_closed_forms(run):
    methods = ("codes", "real", "cca_itq", "scm")
    how = {"methods": methods, "bits": (8,), "precision": (5, 20), "reg": 1e-2}
    values = evaluated(run, "hashing", gallery="train", **how).values
    train, test = pair(run, "train"), pair(run, "test")
    labels = [run[2][part]["label"] for part in ("test", "train")]
    relevant = labels[0][:, None] == labels[1]
    made = {
        "cca_itq": hashing.cca_itq(train, 8, reg=1e-2),
        "scm": hashing.scm(train, 8, np.eye(4)[labels[1]], reg=1e-2),
    }
    for name, hashed in made.items():
        ask, base = ([hashing.packed(x) for x in hashed.bits(p)] for p in (test, train))
        for way, i in (("a2b", 0), ("b2a", 1)):
            want = mean_ap(hashing.hamming(ask[i], base[1 - i]), relevant)
            assert values[f"{name}_8_{way}_map"] == pytest.approx(want, abs=1e-6)
    for name in ("real_8", "scm_8"):
        low, high = (values[f"{name}_a2b_map_{end}"] for end in ("lo", "hi"))
        assert values["chance"] == 0.25 < low <= values[f"{name}_a2b_map"] <= high
        assert values[f"{name}_a2b_p5"] >= values[f"{name}_a2b_p20"] - 0.1
    assert values["scm_8_bytes"] == 10**6 and values["real_8_bytes"] == 32 * 10**6
    assert "codes_8_b2a_map" in values and "real_codes_8_b2a_map" in values


def test_hashing_of_pairs_and_of_clusters(run):
    how = {"methods": ("cca_itq",), "bits": (8,), "reg": 1e-2}
    values = evaluated(run, "hashing", relevant="pair", **how).values
    assert values["chance"] == 1 / 80
    assert values["cca_itq_8_a2b_map"] > 4 * np.mean(1 / np.arange(1, 81)) / 2
    more = {**how, "methods": ("scm",), "relevant": "cluster", "clusters": 4}
    values = evaluated(run, "hashing", **more).values
    assert values["scm_8_a2b_map"] > values["chance"] + 0.2


def test_retrieval_between_views(run):
    ridge = evaluated(run, "view_retrieval", features="views", fit="ridge", reg=0.01)
    values = ridge.values
    assert values["photo_to_words_r1"] > 0.5 > 10 * values["photo_to_words_chance_r1"]
    rank = ridge.arrays["words_to_photo_rank"]
    assert values["words_to_photo_r5"] == pytest.approx((rank < 5).mean())
    assert values["words_to_photo_median_rank"] == np.median(rank) + 1
    conse = {"features": "views", "fit": "conse", "seen": 2}
    values = evaluated(run, "view_retrieval", **conse).values
    # the right class is known, and not which of its 20 rows
    assert values["photo_to_words_r10"] > 2 * values["photo_to_words_chance_r10"]
    with pytest.raises(UserError, match="photo has 10 columns and words 9: use feat"):
        evaluated(run, "view_retrieval", features="views", train=None)
    with pytest.raises(UserError, match="no view 'phot'; did you mean 'photo'"):
        evaluated(run, "view_retrieval", links=(("phot", "words"),), train=None)
    with pytest.raises(UserError, match="fit is '' and train .*: set both"):
        evaluated(run, "view_retrieval")


def test_co_training_beside_its_parts(run):
    got = evaluated(run, "co_training", labels=8, draws=3, rounds=20)
    values = got.values
    best = np.maximum(got.arrays["photo"], got.arrays["words"])
    np.testing.assert_allclose(got.arrays["gain"], got.arrays["co_both"] - best)
    assert values["co_both"] > 0.5 and values["co_both_lo"] <= values["co_both"]
    views, label = pair(run, "train"), run[2]["train"]["label"]
    rng, known = np.random.default_rng([0, 0]), np.zeros(200, bool)
    for c in range(4):
        known[rng.permutation(np.flatnonzero(label == c))[:2]] = True
    mean, spread = views[0].mean(0), views[0].std(0)
    model = co_training.fit((views[0][known] - mean) / spread, label[known], 4)
    test = (pair(run, "test")[0] - mean) / spread
    right = model.log_posterior(test).argmax(1) == run[2]["test"]["label"]
    assert got.arrays["photo"][0] == pytest.approx(right.mean())
    with pytest.raises(UserError, match="labels is 9 of 4 classes: use a multiple"):
        evaluated(run, "co_training", labels=9)
    with pytest.raises(UserError, match="has 50 training rows, and 60 .*labels=200"):
        evaluated(run, "co_training", labels=240)


def test_grounding_moves_similarities_towards_the_images(run):
    values = evaluated(run, "grounding", image="photo", components=6).values
    assert values["cca"] > values["unpaired"] and values["cca"] > 0.5
    assert values["cca_gain"] == pytest.approx(values["cca"] - values["words"])
    assert values["gain_lo"] <= values["gain"] <= values["gain_hi"]
    assert values["joined_gain"] == pytest.approx(values["joined"] - values["words"])


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"methods": ("itq",)}, "methods is .*use codes or cca_itq or scm or real"),
        ({"methods": ("scm",), "train": None}, "'train' is missing"),
        ({"methods": ("scm",), "bits": (12,)}, "12 hash bits: .*use 8 or 16"),
        (
            {"methods": ("real",), "bits": (16,)},
            "16 hash bits of rows with 9 col.*use 8",
        ),
        ({"relevant": "pair", "gallery": "train"}, "set gallery to 'source'"),
        ({"relevant": "pair", "methods": ("scm",)}, "'scm', which learns from classes"),
    ],
)
def test_bad_hashing_says_what_to_change(run, cfg, message):
    with pytest.raises(UserError, match=message):
        evaluated(run, "hashing", **cfg)
