"""Captions from near images and templates, on features that say what is shown."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import captioners
from mmjax.evaluators.captioners import examples, templates

SUBJECTS = ("a dog", "two men", "an old owl")
ACTS = ("runs", "waits")
PLACES = ("in the grass", "on a road")


@pytest.fixture(scope="module")
def world():
    """Features that are one-hot of subject, act and place, and two captions of each."""
    rng, rows, captions = np.random.default_rng(0), [], []
    for i in range(120):
        s, a, p = i % 3, i // 3 % 2, i // 6 % 2
        row = np.zeros(7)
        row[[s, 3 + a, 5 + p]] = 1
        rows.append(row + 0.05 * rng.normal(size=7))
        full = f"{SUBJECTS[s]} {ACTS[a]} {PLACES[p]}"
        captions.append([full.split(), f"{SUBJECTS[s]} {ACTS[a]}".split()])
    return np.array(rows), captions


def say(method, query, world, **options):
    return captioners.say(method, query, *world, captioners.Options(**options))


def test_nearest_says_what_the_nearest_image_has(world):
    features, captions = world
    want = [" ".join(captions[i][0]) for i in (5, 7)]
    assert say("nearest", features[[5, 7]] + 1e-3, world) == want


def test_consensus_leaves_out_the_odd_caption(world):
    features, captions = world
    odd = [[["nobody", "knows"], *captions[0]], *captions[1:]]
    assert say("nearest", features[:1], (features, odd)) == ["nobody knows"]
    said = say("consensus", features[:1], (features, odd), neighbours=8)
    assert said[0].startswith("a dog runs")


def test_phrases_make_a_sentence_that_nobody_wrote(world):
    features, captions = world
    # what the dog does and where it is are never in one caption, as others' are
    split = [
        [c[0][:3], ["it", "is", *c[0][3:]]] if i % 3 == 0 else c
        for i, c in enumerate(captions)
    ]
    said = say("phrases", features[:1], (features, split), neighbours=10)
    assert said == ["a dog runs in the grass"]
    assert said[0] not in {" ".join(c) for group in split for c in group}


def test_phrases_begin_at_prepositions():
    words = "a man in a hat on top of a hill".split()
    cut = examples.cut(words)
    assert [" ".join(p) for p in cut] == ["a man", "in a hat", "on top", "of a hill"]
    assert sum(cut, ()) == tuple(words)


def test_templates_are_filled_with_what_is_seen(world):
    features, captions = world
    slots = {"subject": ("dog", "men", "owl"), "act": ACTS, "place": PLACES}
    said = say(
        "template",
        features[:12],
        world,
        templates=("a {subject} {act} {place}",),
        slots=slots,
        ridge=1.0,
    )
    for text, group in zip(said, captions, strict=False):
        s, a, p = (group[0][1], group[0][2], " ".join(group[0][3:]))
        if s == "old":
            assert text.startswith("an owl")
            continue
        assert text == f"a {s} {a} {p}"


def test_the_best_path_is_that_of_all_paths(world):
    slots = {"subject": ("dog", "men"), "act": ACTS, "place": PLACES}
    sentence = "{subject} {act} {place}"
    options = captioners.Options(templates=(sentence,), slots=slots)
    filler = templates.Filler(*world, options)
    query = np.random.default_rng(1).normal(size=(5, 7))
    seen = filler.see(query)
    pair = [
        filler._together(*names) for names in (("subject", "act"), ("act", "place"))
    ]
    for q, text in enumerate(filler.say(query)):
        scores = {
            f"{slots['subject'][s]} {ACTS[a]} {PLACES[p]}": (
                seen["subject"][q, s]
                + seen["act"][q, a]
                + seen["place"][q, p]
                + pair[0][s, a]
                + pair[1][a, p]
            )
            for s in (0, 1)
            for a in (0, 1)
            for p in (0, 1)
        }
        assert scores[text] == pytest.approx(max(scores.values()))


@pytest.mark.parametrize(
    ("method", "options", "what"),
    [
        ("consensos", {}, "no captioner 'consensos'; did you mean 'consensus'"),
        ("consensus", {"neighbours": 500}, "neighbours is 500, and there are 120 exam"),
        ("template", {}, "has no templates: give templates"),
        ("template", {"templates": ("a dog",)}, "template 'a dog' has no {slot}"),
        ("template", {"templates": ("a {dog}",)}, "slot 'dog', and slots has no conc"),
    ],
)
def test_what_is_wrong_is_said(world, method, options, what):
    with pytest.raises((UserError, ValueError), match=what):
        say(method, world[0][:1], world, **options)
