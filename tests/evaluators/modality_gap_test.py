"""The gap against loops over pairs."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import modality_gap


def example(make_source, n=9):
    rng = np.random.default_rng(2)
    texts = [[f"word{i} of", "never read"] for i in range(n)]
    source = make_source(rng.integers(0, 255, (n, 12)), texts=texts)
    variables = {"image": rng.normal(size=(12, 5)), "text": rng.normal(size=(40, 5))}
    return source, {k: np.float32(v) for k, v in variables.items()}


def unit(x):
    return x / np.linalg.norm(x)


def test_numbers_match_loops(make_env, make_source):
    source, variables = example(make_source)
    env = make_env()
    got = modality_gap.Evaluator({"source": source, "resamples": 20}, env).run(
        variables
    )
    words = env.tokenizer.words
    images = [unit(v.astype(np.float32) @ variables["image"]) for v in source.vectors]
    texts = [
        unit(variables["text"][words[f"word{i}"]] + variables["text"][words["of"]])
        for i in range(len(source))
    ]
    two = list(itertools.permutations(range(len(source)), 2))
    want = {
        "gap": np.linalg.norm(np.mean(images, 0) - np.mean(texts, 0)),
        "pair": np.mean([i @ t for i, t in zip(images, texts, strict=True)]),
        "image": np.mean([images[a] @ images[b] for a, b in two]),
        "text": np.mean([texts[a] @ texts[b] for a, b in two]),
        "other": np.mean([images[a] @ texts[b] for a, b in two]),
    }
    for name, value in want.items():
        assert got.values[name] == pytest.approx(value, rel=1e-4), name
        low, high = got.values[f"{name}_lo"], got.values[f"{name}_hi"]
        assert low <= high
    both = np.concatenate([got.arrays["image_xy"], got.arrays["text_xy"]])
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-5)
    assert both[:, 0].var() >= both[:, 1].var()
    modality_gap.figure(got.values, got.arrays, "t").savefig("/dev/null", format="png")


def test_no_gap_where_texts_are_the_images():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gap, pair, image, text, other = modality_gap._statistics(rows, rows, np.ones(50))
    assert gap == pytest.approx(0, abs=1e-12) and pair == pytest.approx(1)
    assert image == pytest.approx(text) and image == pytest.approx(other)


def test_refuses_one_pair(make_env, make_source):
    source, variables = example(make_source, n=1)
    with pytest.raises(UserError, match="1 pairs"):
        modality_gap.Evaluator({"source": source}, make_env()).run(variables)
