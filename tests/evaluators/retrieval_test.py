"""Retrieval against a loop that sorts every list, with hand-made ties."""

import json

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import retrieval

WORDS = np.asarray([f"w{i}" for i in range(30)])


def example(make_source, *, n=25, seed=0, **more):
    rng = np.random.default_rng(seed)
    texts = [
        [
            " ".join(rng.choice(WORDS, 3, replace=False))
            for _ in range(rng.integers(1, 6))
        ]
        for _ in range(n)
    ]
    source = make_source(rng.integers(0, 255, (n, 12)), texts=texts, **more)
    variables = {"image": rng.normal(size=(12, 6)), "text": rng.normal(size=(64, 6))}
    return source, jax.tree.map(np.float32, variables)


def scores_of(source, variables, words):
    """(images, captions) cosines and each caption's image, one at a time."""

    def unit(x):
        return x / np.linalg.norm(x)

    images = [unit(v.astype(np.float32) @ variables["image"]) for v in source.vectors]
    captions, owner = [], []
    for i, listed in enumerate(source[j]["text"] for j in range(len(source))):
        for text in listed:
            captions.append(
                unit(sum(variables["text"][words[w]] for w in text.split()))
            )
            owner.append(i)
    return np.asarray(images) @ np.asarray(captions).T, np.asarray(owner)


def test_matches_a_loop(make_env, make_source):
    source, variables = example(make_source)
    env = make_env(batch_size=8)
    evaluator = retrieval.Evaluator({"source": source}, env)
    evaluator.check(jax.eval_shape(lambda: variables))
    source.reads = 0
    got = evaluator.run(variables)
    assert source.reads == len(source)  # captions cost no second decoding
    scores, owner = scores_of(source, variables, env.tokenizer.words)
    image_ranks, caption_ranks = [], []
    for i, row in enumerate(scores):
        order = [owner[m] for m in np.argsort(-row)]
        image_ranks.append(order.index(i))
    for m, column in enumerate(scores.T):
        caption_ranks.append(list(np.argsort(-column)).index(owner[m]))
    for way, ranks in (("i2t", image_ranks), ("t2i", caption_ranks)):
        np.testing.assert_array_equal(got.arrays[f"{way}_rank"], ranks)
        for k in (1, 5, 10):
            value = got.values[f"{way}_r{k}"]
            assert value == pytest.approx(np.mean(np.asarray(ranks) < k))
            low, high = got.values[f"{way}_r{k}_lo"], got.values[f"{way}_r{k}_hi"]
            assert low <= value <= high
        assert got.values[f"{way}_median_rank"] == np.median(ranks) + 1
    assert all(len(sizes) == 1 for sizes in env.shapes.values())  # one compile each


def hand_made(make_source, texts):
    """Two orthogonal images; words 'east' and 'north' point at one each."""
    pixels = np.zeros((2, 12))
    pixels[0, 0] = pixels[1, 1] = 1
    image = np.eye(12, 2, dtype=np.float32)
    return make_source(pixels, texts=texts), {"image": image}


def run_by_hand(make_env, source, variables, vectors, **cfg):
    env = make_env(batch_size=2)
    env.tokenizer.encode(list(vectors))  # fixes the words' ids to 1, 2, ...
    table = np.zeros((16, 2), np.float32)
    table[1 : 1 + len(vectors)] = list(vectors.values())
    cfg = {"source": source, **cfg}
    return retrieval.Evaluator(cfg, env).run({**variables, "text": table})


def test_ties_by_hand(make_env, make_source):
    source, variables = hand_made(make_source, [["east", "far"], ["both"]])
    vectors = {"east": [1, 0], "far": [0, 1], "both": [1, 1]}
    got = run_by_hand(make_env, source, variables, vectors)
    # image 0: own 'east' 1.0 beats 'both' 0.7. image 1: 'far' 1.0 beats own 'both'
    np.testing.assert_array_equal(got.arrays["i2t_rank"], [0, 1])
    # 'east' finds image 0; 'far' finds image 1 first; 'both' ties: counted as a miss
    np.testing.assert_array_equal(got.arrays["t2i_rank"], [0, 1, 1])
    assert got.values["i2t_r1"] == 0.5
    assert got.values["t2i_r1"] == pytest.approx(1 / 3)
    assert got.values["i2t_median_rank"] == 1.5
    assert got.values["t2i_median_rank"] == 2


def test_a_collapsed_model_finds_nothing(make_env, make_source):
    source, variables = example(make_source)
    variables = {
        "image": np.ones((12, 6), np.float32),
        "text": np.ones((64, 6), np.float32),
    }
    values = retrieval.Evaluator({"source": source}, make_env()).run(variables).values
    assert values["i2t_r10"] == values["t2i_r10"] == 0
    assert values["t2i_median_rank"] == len(source)


def test_equal_captions(make_env, make_source):
    source, variables = hand_made(make_source, [["same"], ["same"]])
    vectors = {"same": [1, 1]}
    strict = run_by_hand(make_env, source, variables, vectors)
    assert strict.values["i2t_r1"] == strict.values["t2i_r1"] == 0
    equal = run_by_hand(make_env, source, variables, vectors, matches="equal")
    assert equal.values["i2t_equal_r1"] == equal.values["t2i_equal_r1"] == 1
    assert "i2t_r1" not in equal.values
    assert strict.card["id"] != equal.card["id"]
    assert strict.card["counts"]["distinct_captions"] == 1


def test_equal_is_own_where_captions_differ(make_env, make_source):
    source, variables = example(make_source)
    cfg = {"source": source}
    own = retrieval.Evaluator(cfg, make_env()).run(variables).values
    equal = retrieval.Evaluator({**cfg, "matches": "equal"}, make_env()).run(variables)
    renamed = {name.replace("equal_", ""): v for name, v in equal.values.items()}
    assert renamed == own


def test_broken_records_leave_with_their_captions(make_env, make_source):
    source, variables = example(make_source, broken=(0, 24))
    got = retrieval.Evaluator({"source": source}, make_env()).run(variables)
    listed = sum(len(source[i]["text"]) for i in range(1, 24))
    counts = got.card["counts"]
    assert (counts["images"], counts["captions"], counts["broken"]) == (23, listed, 2)
    np.testing.assert_array_equal(got.arrays["index"], np.arange(1, 24))


def test_repeating_captions_does_not_narrow_the_interval(make_env, make_source):
    source, variables = example(make_source)
    firsts = [[source[i]["text"][0]] for i in range(len(source))]
    once = make_source(source.vectors, texts=firsts)
    often = make_source(source.vectors, texts=[5 * t for t in firsts])
    one, five = (
        retrieval.Evaluator({"source": s}, make_env()).run(variables).values
        for s in (once, often)
    )
    t2i = [name for name in one if name.startswith("t2i")]
    assert [one[n] for n in t2i] == pytest.approx([five[n] for n in t2i])
    assert one["t2i_r10_lo"] < one["t2i_r10_hi"]


def test_template_and_card(make_env, make_source):
    source, variables = example(make_source)
    env = make_env()
    cfg = {"source": source, "template": "photo {}", "limit": 10}
    got = retrieval.Evaluator(cfg, env).run(variables)
    card = json.loads(json.dumps(got.card))
    assert "photo" in env.tokenizer.words
    assert card["template"] == "photo {}" and card["matches"] == "own"
    assert card["source"]["records"] == card["counts"]["images"] == 10
    np.testing.assert_array_equal(got.arrays["index"], np.arange(10))
    assert (
        card["counts"]["captions_fill_context"] == card["counts"]["captions"]
    )  # context 4
    assert "images" in card["interval"]["resampled"]
    again = retrieval.Evaluator(cfg, make_env()).run(variables)
    assert again.values == got.values and again.card == got.card


def test_refusals(make_env, make_source):
    source, variables = example(make_source)
    shapes = jax.eval_shape(lambda: variables)
    with pytest.raises(UserError, match="no tokenizer"):
        retrieval.Evaluator({"source": source}, make_env(tokenizer=False))
    silent = make_source(source.vectors)
    with pytest.raises(UserError, match="record 0 of 'fake' has no caption"):
        retrieval.Evaluator({"source": silent}, make_env()).check(shapes)
    wide = {**variables, "text": np.zeros((64, 7), np.float32)}
    with pytest.raises(UserError, match="rows of 6 and 'embed_text' gives rows of 7"):
        retrieval.Evaluator({"source": source}, make_env()).check(
            jax.eval_shape(lambda: wide)
        )
    lost = make_source(source.vectors, texts=[["a"]] * 25, broken=range(25))
    with pytest.raises(UserError, match="25 records, all of them broken"):
        retrieval.Evaluator({"source": lost}, make_env()).run(variables)
    variables["text"][1:] = np.nan
    with pytest.raises(UserError, match="embed_text gave NaN or Inf"):
        retrieval.Evaluator({"source": source}, make_env()).run(variables)
