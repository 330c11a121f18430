"""Vector arithmetic on vectors made of their two words, where it must be right."""

import dataclasses
import json

import batch_fields
import jax
import numpy as np
import pytest

from mmjax.data.fields import image
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.evaluators import arithmetic

NAMES = tuple(f"{a} {b}" for a in ("red", "green", "blue") for b in ("disc", "star"))


def example(make_source, make_env, *, each=6, entangled=False, names=NAMES, noise=3):
    """Images: pixel a of their first word, pixel 3 + b of their second, and noise."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(6), each)
    rng.shuffle(label)
    pixels = rng.integers(0, noise + 1, (len(label), 12))
    pixels[np.arange(len(label)), label // 2] += 100
    pixels[np.arange(len(label)), 3 + label % 2] += 100
    if entangled:  # a pixel for every pair: words mean nothing on their own
        pixels = rng.integers(0, noise + 1, (len(label), 12))
        pixels[np.arange(len(label)), 6 + label] += 100
    source = make_source(pixels, labels=label, class_names=names)
    env = make_env()
    words = ["red", "green", "blue", "disc", "star"]
    env.tokenizer.encode(words)  # ids 1 to 5
    table = np.zeros((16, 12), np.float32)
    table[np.arange(1, 6), np.arange(5)] = 1
    return source, env, {"image": np.eye(12, dtype=np.float32), "text": table}


def run(source, env, variables, **cfg):
    cfg = {"source": source, "top": 5, "resamples": 50, **cfg}
    evaluator = arithmetic.Evaluator(cfg, env)
    evaluator.check(jax.eval_shape(lambda: variables))
    return evaluator.run(variables)


def test_words_that_add_up(make_env, make_source):
    got = run(*example(make_source, make_env), weight=0.8)
    for swap in ("first", "second"):
        assert got.values[f"{swap}_p5"] == got.values[f"{swap}_text_p5"] == 1
        assert got.values[f"{swap}_kept_p5"] == got.values[f"{swap}_new_p5"] == 1
        assert got.values[f"{swap}_image_p5"] == 0  # five others of its own class
        assert got.values[f"{swap}_chance_p5"] == pytest.approx(6 / 35)
        assert got.values[f"{swap}_p5_lo"] == got.values[f"{swap}_p5_hi"] == 1
    assert got.card["counts"] == {
        "images": 36,
        "queries": 72,
        "broken": 0,
        "classes_present": 6,
    }
    json.dumps(got.card)


def test_words_that_do_not(make_env, make_source):
    got = run(*example(make_source, make_env, entangled=True))
    assert got.values["first_p5"] < 0.4 and got.values["second_p5"] < 0.4


@pytest.mark.parametrize("words", ["bare", "whole"])
def test_against_a_loop(make_env, make_source, words):
    source, env, variables = example(make_source, make_env, noise=80)
    weight = 0.4
    got = run(source, env, variables, weight=weight, words=words, seed=3)

    def unit(x):
        return x / np.linalg.norm(x)

    def text(sentence):
        return unit(
            sum(variables["text"][env.tokenizer.words[w]] for w in sentence.split())
        )

    images = [unit(v.astype(np.float32)) for v in source.vectors]
    arrays = got.arrays
    assert {len(arrays[n]) for n in ("query", "swap", "target", "hit", "kept")} == {72}
    hits = {0: [], 1: []}
    for row, (i, swap, target) in enumerate(
        zip(arrays["query"], arrays["swap"], arrays["target"], strict=True)
    ):
        old, new = NAMES[source.labels[i]].split(), NAMES[target].split()
        assert old[1 - swap] == new[1 - swap] and old[swap] != new[swap]
        pair = (old[swap], new[swap]) if words == "bare" else map(" ".join, (old, new))
        minus, plus = map(text, pair)
        query = images[i] + weight * (plus - minus)
        others = [n for n in range(len(images)) if n != i]
        near = sorted(others, key=lambda n: -images[n] @ query)[:5]
        names = [NAMES[source.labels[n]].split() for n in near]
        assert arrays["hit"][row] == pytest.approx(np.mean([n == new for n in names]))
        assert arrays["kept"][row] == pytest.approx(
            np.mean([n[1 - swap] == new[1 - swap] for n in names])
        )
        hits[int(swap)].append(arrays["hit"][row])
    assert got.values["first_p5"] == pytest.approx(np.mean(hits[0]))
    assert got.values["second_p5"] == pytest.approx(np.mean(hits[1]))
    assert 0.1 < got.values["first_p5"] < 0.95  # noise enough that both sides matter
    assert got.values["first_p5_lo"] < got.values["first_p5"]
    assert got.values["first_p5"] < got.values["first_p5_hi"]


def test_the_same_again_and_broken_records(make_env, make_source):
    source, env, variables = example(make_source, make_env, each=8)
    first = run(source, env, variables)
    again = run(*example(make_source, make_env, each=8))
    assert again.values == first.values and again.card == first.card
    source.broken = {0, 47}
    less = run(source, env, variables)
    assert less.card["counts"]["images"] == 46 and less.card["counts"]["broken"] == 2
    np.testing.assert_array_equal(less.arrays["index"], np.arange(1, 47))
    other = run(*example(make_source, make_env, each=8), weight=2.0)
    assert other.card["id"] != first.card["id"]


def test_backgrounds_of_drawn_scenes(make_env):
    source = open_source("shapes:val?size=16&count=300&objects=1")
    env = dataclasses.replace(
        make_env(batch_size=50),
        image_cfg=image.Field(size=16, mode="squash"),
        eval_batches=batch_fields.batches(None, image.Field(size=16, mode="squash")),
    )
    rng = np.random.default_rng(0)
    variables = {
        "image": rng.standard_normal((16 * 16 * 3, 8)).astype(np.float32),
        "text": rng.standard_normal((128, 8)).astype(np.float32),
    }
    got = run(source, env, variables, top=2, limit=200, weight=0.02)
    grounds = [source[int(i) * 300 // 200]["scene"].background for i in range(200)]
    shares = np.unique(grounds, return_counts=True)[1] / 200
    # pixels through a random matrix keep the background, texts know none
    assert got.values["first_ground_p2"] > 0.6
    assert abs(got.values["first_text_ground_p2"] - (shares**2).sum()) < 0.12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a b", "c")}, "class 'c' has 1 words"),
        ({"names": ()}, "names no classes"),
        ({"each": 4}, r"no image has a class that differs .* has 5 images"),
    ],
)
def test_sources_without_swaps(make_env, make_source, change, message):
    with pytest.raises(UserError, match=message):
        run(*example(make_source, make_env, **change))


def test_settings_that_say_nothing(make_env, make_source):
    source, env, _ = example(make_source, make_env)
    for cfg in ({"template": "a"}, {"top": 0}, {"weight": float("nan")}):
        with pytest.raises(UserError, match="arithmetic"):
            arithmetic.Evaluator({"source": source, **cfg}, env)
    with pytest.raises(UserError, match="no tokenizer"):
        arithmetic.Evaluator({"source": source}, make_env(tokenizer=False))
