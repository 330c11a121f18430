"""Classes of records by their windows' codes, one field missing or of another class."""

import numpy as np
import pytest

from mmjax import evaluators
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.evaluators import modalities
from mmjax.evaluators.common.subset import Subset

CONFIG = {"type": "modalities", "source": "test", "train": "train", "svm": (1.0,)}
WINDOWS = 4  # of a record


def codes(variables, batch):
    """The class by the image, in columns 0 and 1, and by the tokens, in 2 and 3."""
    rows = len(next(iter(batch.values())))
    code = np.zeros((rows, 4), np.float32)
    if "image" in batch:
        label = (batch["image"].reshape(rows, -1)[:, 0] > 100).astype(int)
        code[np.arange(rows), label] = 1
    if "tokens" in batch:
        label = (batch["tokens"][:, 0] > 1).astype(int)
        code[np.arange(rows), 2 + label] = 2
    return code


def sources(make_source, count=40):
    label = np.arange(count) // WINDOWS % 2
    vectors = np.repeat(label[:, None] * 200, 12, 1)
    texts = [[("one", "two")[one]] for one in label]
    more = {"texts": texts, "labels": label, "class_names": ("a", "b")}
    made = {name: make_source(vectors, **more) for name in ("test", "train", "odd")}
    for source in made.values():
        source.groups = np.arange(count) // WINDOWS
        source.places = np.arange(count) % WINDOWS / (WINDOWS - 1)
    return made


def build(make_env, make_source, **more):
    env = make_env(sources(make_source), codes=codes)
    env.tokenizer.encode(["one", "two"])  # 1 and 2
    object.__setattr__(env, "raw", env.raw | {"codes": codes})
    return evaluators.build("x", CONFIG | more, env)


def test_every_way(make_env, make_source):
    more = {"variants": {"odd": "odd"}, "conflicts": 30}
    result = build(make_env, make_source, **more).run({})
    values = result.values
    for way in ("all", "image", "tokens", "beside", "all@odd", "tokens@odd"):
        assert values[way] == 1.0, way
    # what one field says is nowhere in the code of the other
    assert max(values["image_to_tokens"], values["tokens_to_image"]) <= 0.5
    assert result.card["counts"]["records"] == 10
    # the tokens weigh twice as much
    assert values["conflict_tokens"] == 1.0
    assert values["conflict_image"] == values["conflict_other"] == 0.0
    given = result.arrays["conflict_image"], result.arrays["conflict_tokens"]
    assert (given[0] != given[1]).all() and len(given[0]) == 30
    np.testing.assert_array_equal(result.arrays["conflict_answer"], given[1])


def test_windows_are_found_through_views():
    spec = {"kind": "windows", "source": "warps:val?count=3&frames=12&warp=0&shift=0"}
    spec["series"] = {"first": 6, "second": 4}
    source = open_source(spec | {"skip": 1, "limit": 8, "keep": True})
    index = np.array([0, 4, 7])
    group, place = modalities.grouped(Subset(source), index)
    whole = open_source(spec)
    np.testing.assert_array_equal(group, whole.groups[index + 1])
    np.testing.assert_array_equal(place, whole.places[index + 1])
    assert len(set(group)) > 1
    alone = modalities.grouped(open_source("warps:val?count=9"), index)[0]
    np.testing.assert_array_equal(alone, index)


def test_cards_differ_where_the_numbers_may(make_env, make_source):
    changes = ({}, {"svm": (3.0,)}, {"parts": 1}, {"variants": {"odd": "odd"}})
    ids = {
        build(make_env, make_source, **change).run({}).card["id"] for change in changes
    }
    assert len(ids) == len(changes)


def test_pooled_by_hand():
    code = np.array([[1.0], [2], [6], [5]])
    group, place = np.array([0, 0, 0, 7]), np.array([0, 0.5, 1, 0])
    got = modalities.pooled(code, group, place, 2)
    # 0.5 begins the second half; the second record has no window there
    np.testing.assert_allclose(got, [[3, 1, 4], [5, 5, 5]])
    np.testing.assert_allclose(modalities.pooled(code, group, place, 1), [[3], [5]])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train": None}, "'train' is missing"),
        ({"svm": ()}, "give values of C above 0"),
        ({"conflicts": 3, "same": "speaker"}, "same is 'speaker', and records have"),
    ],
)
def test_refusals(make_env, make_source, more, message):
    with pytest.raises(UserError, match=message):
        build(make_env, make_source, **more).run({})
