"""Zero-shot against a loop over examples, classes and prompts."""

import json

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import zero_shot

NAMES = tuple("abcdefg")
TEMPLATES = ("{}", "photo {}", "{} thing")


def example(make_source, *, n=30, seed=0, **more):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(NAMES), n)
    vectors = rng.integers(0, 255, (n, 12))
    source = make_source(vectors, labels=labels, class_names=NAMES, **more)
    variables = {"image": rng.normal(size=(12, 5)), "text": rng.normal(size=(40, 5))}
    return source, jax.tree.map(np.float32, variables)


def unit(x):
    return x / np.linalg.norm(x)


def by_hand(source, variables, words):
    """(n, c) similarities, one at a time."""
    classes = []
    for name in NAMES:
        vectors = []
        for template in TEMPLATES:
            ids = [words[w] for w in template.replace("{}", name).split()]
            vectors.append(unit(sum(variables["text"][i] for i in ids)))
        classes.append(unit(np.mean(vectors, 0)))
    images = [unit(v.astype(np.float32) @ variables["image"]) for v in source.vectors]
    return np.asarray([[np.dot(i, c) for c in classes] for i in images])


def test_matches_a_loop(make_env, make_source):
    source, variables = example(make_source)
    env = make_env()
    cfg = {"source": source, "templates": list(TEMPLATES)}
    evaluator = zero_shot.Evaluator(cfg, env)
    evaluator.check(jax.eval_shape(lambda: variables))
    got = evaluator.run(variables)
    scores = by_hand(source, variables, env.tokenizer.words)
    order = np.argsort(-scores, 1)
    top1 = order[:, 0] == source.labels
    top5 = (order[:, :5] == source.labels[:, None]).any(1)
    per_class = [top1[source.labels == c].mean() for c in set(source.labels)]
    assert got.values["top1"] == pytest.approx(top1.mean())
    assert got.values["top5"] == pytest.approx(top5.mean())
    assert got.values["mean_per_class"] == pytest.approx(np.mean(per_class))
    np.testing.assert_array_equal(got.arrays["prediction"], order[:, 0])
    np.testing.assert_array_equal(got.arrays["index"], np.arange(30))
    for name in ("top1", "top5", "mean_per_class"):
        low, high = got.values[f"{name}_lo"], got.values[f"{name}_hi"]
        assert low <= got.values[name] <= high
    assert all(len(sizes) == 1 for sizes in env.shapes.values())  # one compile each


def test_batch_size_and_rerun_change_nothing(make_env, make_source):
    source, variables = example(make_source)
    cfg = {"source": source, "templates": TEMPLATES}
    results = [
        zero_shot.Evaluator({**cfg, **more}, make_env()).run(variables)
        for more in ({}, {"batch_size": 7}, {"batch_size": 64}, {})
    ]
    assert results[0].values == results[3].values
    for other in results[1:]:
        assert other.values == pytest.approx(results[0].values)
        assert other.card["id"] == results[0].card["id"]


def test_a_collapsed_model_scores_nothing(make_env, make_source):
    source, variables = example(make_source)
    variables["text"] = np.ones_like(variables["text"])
    values = zero_shot.Evaluator({"source": source}, make_env()).run(variables).values
    assert values["top1"] == values["top5"] == values["mean_per_class"] == 0


def test_few_classes_have_no_top5(make_env, make_source):
    rng = np.random.default_rng(0)
    source = make_source(rng.integers(0, 9, (4, 12)), labels=[0, 1, 0, 1])
    variables = {
        "image": np.ones((12, 2), np.float32),
        "text": np.ones((9, 2), np.float32),
    }
    cfg = {"source": source, "class_names": ["x", "y"]}
    assert "top5" not in zero_shot.Evaluator(cfg, make_env()).run(variables).values


def test_card_says_what_was_measured(make_env, make_source, tmp_path):
    source, variables = example(make_source, broken=(3, 4))
    cfg = {"source": source, "templates": "clip7"}
    got = zero_shot.Evaluator(cfg, make_env()).run(variables)
    card = json.loads(json.dumps(got.card))
    assert card["templates"]["name"] == "clip7" and card["templates"]["count"] == 7
    assert (
        card["class_names"]["count"] == 7 and len(card["class_names"]["sha256"]) == 64
    )
    assert card["source"]["fingerprint"] == source.fingerprint()
    assert card["tokenizer"]["fingerprint"] == "words"
    assert card["preprocessing"] == {"size": 2, "method": "bicubic", "mode": "squash"}
    counts = card["counts"]
    assert (counts["examples"], counts["broken"], counts["classes_alike"]) == (28, 2, 0)
    assert len(got.arrays["label"]) == 28
    names = tmp_path / "names.txt"
    names.write_text("\n".join(reversed(NAMES)))
    ids = {card["id"]}
    for more in (
        {"templates": TEMPLATES},
        {"limit": 10},
        {"class_names": str(names)},
    ):
        ids.add(
            zero_shot.Evaluator({**cfg, **more}, make_env()).run(variables).card["id"]
        )
    assert len(ids) == 4


def test_limit_is_spread_over_a_sorted_set(make_env, make_source):
    source, variables = example(make_source, n=28)
    source.labels = np.arange(28) // 4
    cfg = {"source": source, "limit": 7}
    got = zero_shot.Evaluator(cfg, make_env()).run(variables)
    np.testing.assert_array_equal(got.arrays["label"], np.arange(7))
    assert got.card["source"] | {"fingerprint": ""} == {
        "name": "fake",
        "fingerprint": "",
        "fingerprint_covers": "every value",
        "records": 7,
        "limit": 7,
    }


def test_prompts_that_tokens_cannot_tell_apart_are_counted(make_env, make_source):
    source = make_source(np.ones((2, 12)), labels=[0, 1])
    cfg = {
        "source": source,
        "templates": ["one two three four {}"],
        "class_names": ["x", "y"],
    }
    variables = {
        "image": np.ones((12, 2), np.float32),
        "text": np.ones((9, 2), np.float32),
    }
    counts = zero_shot.Evaluator(cfg, make_env()).run(variables).card["counts"]
    assert (counts["classes_alike"], counts["prompts_fill_context"]) == (2, 2)


@pytest.mark.parametrize(
    "more, words",
    [
        ({"class_names": ["a"] * 7}, "labels 0 and 1 are both called 'a'"),
        ({"class_names": ["a", "b"]}, "2 class_names for the 7 classes"),
        ({"class_names": [*"abcdef", " "]}, "label 6 is empty"),
    ],
)
def test_refuses_class_names(make_env, make_source, more, words):
    source, _ = example(make_source)
    with pytest.raises(UserError, match=words):
        zero_shot.Evaluator({"source": source, **more}, make_env())


def test_refuses_data_and_models(make_env, make_source):
    source, variables = example(make_source)
    shapes = jax.eval_shape(lambda: variables)
    unnamed = make_source(source.vectors, labels=source.labels)
    with pytest.raises(UserError, match="names no classes"):
        zero_shot.Evaluator({"source": unnamed}, make_env())
    with pytest.raises(UserError, match="no tokenizer"):
        zero_shot.Evaluator({"source": source}, make_env(tokenizer=False))
    unlabelled = make_source(source.vectors, class_names=NAMES)
    with pytest.raises(UserError, match="carry no label"):
        zero_shot.Evaluator({"source": unlabelled}, make_env()).check(shapes)
    empty = make_source(source.vectors[:0], labels=[], class_names=NAMES)
    with pytest.raises(UserError, match="holds no examples"):
        zero_shot.Evaluator({"source": empty}, make_env()).check(shapes)
    lost = make_source([[1] * 12], labels=[0], class_names=NAMES, broken=[0])
    with pytest.raises(UserError, match="1 records, all of them broken"):
        zero_shot.Evaluator({"source": lost}, make_env()).run(variables)
    for label in (7, -1):
        source.labels = np.full(30, label)
        with pytest.raises(UserError, match=f"label {label}, but .* 7 class names"):
            zero_shot.Evaluator({"source": source}, make_env()).run(variables)


def test_check_computes_nothing_and_finds_mismatches(make_env, make_source):
    source, variables = example(make_source)
    env = make_env()
    evaluator = zero_shot.Evaluator({"source": source}, env)
    bad = {**variables, "text": np.zeros((40, 6), np.float32)}
    with pytest.raises(UserError, match="rows of 5 and 'embed_text' gives rows of 6"):
        evaluator.check(jax.eval_shape(lambda: bad))
    bad = {**variables, "image": np.zeros((27, 5), np.float32)}
    with pytest.raises(UserError, match=r"'embed_image' cannot take .*\(4, 2, 2, 3\)"):
        evaluator.check(jax.eval_shape(lambda: bad))
    pooled = make_env(embed_text=lambda variables, batch: variables["text"].sum(0))
    with pytest.raises(UserError, match=r"'embed_text' must give \(4, d\), gives"):
        zero_shot.Evaluator({"source": source}, pooled).check(
            jax.eval_shape(lambda: variables)
        )
    assert not env.shapes
    del env.raw["embed_text"]
    with pytest.raises(UserError, match="no predict function 'embed_text'"):
        evaluator.check(jax.eval_shape(lambda: variables))


def test_nan_is_an_error_and_not_a_perfect_score(make_env, make_source):
    source, variables = example(make_source)
    variables["image"][0, 0] = np.nan
    with pytest.raises(UserError, match="embed_image gave NaN or Inf in 4 of 4"):
        zero_shot.Evaluator({"source": source}, make_env()).run(variables)


def test_names_that_repeat_tie_and_are_never_right(make_env, make_source):
    source, variables = example(make_source)
    names = ("a", "a", *NAMES[2:])
    cfg = {"source": source, "class_names": names, "templates": "plain"}
    got = zero_shot.Evaluator({**cfg, "repeated_names": True}, make_env()).run(
        variables
    )
    assert got.card["counts"]["classes_alike"] == 2
    assert (got.arrays["rank"][source.labels < 2] > 0).all()
    assert (got.arrays["rank"][source.labels >= 2] == 0).any()
