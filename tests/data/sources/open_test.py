"""The door itself: spec strings, shared options, mixtures."""

import collections
import importlib

import pytest

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import kinds, open_source, parse
from mmjax.errors import UserError

SHAPES = "shapes:val?size=16&count=6&objects=1"


def test_kinds():
    expected = (
        "csv folder jsonl karpathy mixture npz shapes shifted tfds tokens tsv "
        "webdataset"
    )
    assert set(expected.split()) <= set(kinds())
    for kind in kinds():
        module = importlib.import_module(f"mmjax.data.sources.{kind}")
        assert callable(module.open) and module.open.__doc__, kind
    assert not {"encoded", "table", "views", "columns"} & set(kinds())


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("a:/x", ("a", "/x", {})),
        ("a:/x?b=1&c=x=y", ("a", "/x", {"b": "1", "c": "x=y"})),
        ("a:/x-?.tar?b=1", ("a", "/x-?.tar", {"b": "1"})),
        ("a:/x?t=black & white {}&b=", ("a", "/x", {"t": "black & white {}", "b": ""})),
        ({"kind": "a", "path": "/x", "b": 2, "c": None}, ("a", "/x", {"b": 2})),
    ],
)
def test_parse(spec, expected):
    assert parse(spec) == expected


@pytest.mark.parametrize(
    "spec, message",
    [
        ("/data/x.tar", "has no kind: write 'kind:path'"),
        ({"path": "x"}, "has no 'kind'"),
        ("webdatset:x", "did you mean 'webdataset'"),
        ("encoded:x", "legal: coco, csv, folder"),
        ("shapes:val?sise=16", "no option 'sise'; did you mean 'size'"),
        ("shapes:val?limit=two", "limit='two': give a value of type int"),
        ("shapes:val?limit=0", "limit >= 1"),
        ("shapes:val?count=5&skip=5", "leaves nothing of 5"),
        ("shapes:val?template=a photo", "write {} once"),
        ("jsonl:/nowhere.jsonl", "/nowhere.jsonl does not exist"),
        ("mixture:x", "is written"),
        ({"kind": "mixture", "parts": [(SHAPES, 0)]}, "positive numbers"),
        ([SHAPES, SHAPES], "is written [(spec, weight), ...]"),
        ([(SHAPES, 1.0, 2.0)], "is written [(spec, weight), ...]"),
        ((), "is written [(spec, weight), ...]"),
        ("tfds:mnist", "write NAME/SPLIT"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError) as error:
        open_source(spec)
    assert message in str(error.value)


def test_range_and_prompts():
    whole = open_source(SHAPES)
    part = open_source(SHAPES + "&skip=2&limit=3")
    assert [part[i]["key"] for i in range(3)] == [whole[i]["key"] for i in (2, 3, 4)]
    assert list(part.texts()) == [text for i in (2, 3, 4) for text in whole[i]["text"]]
    assert part.fingerprint() != whole.fingerprint()
    prompted = open_source(SHAPES + "&template=a {}|the {}")
    name = whole.class_names[whole[0]["label"]]
    assert prompted[0]["text"] == [f"a {name}", f"the {name}"]
    two = open_source("shapes:val?size=16&count=6&objects=2&template=a {}")
    with pytest.raises(BrokenRecord, match="no label"):
        two[0]


def test_mixture_shows_every_record_and_keeps_the_weights():
    parts = [
        ("shapes:val?size=16&count=10", 3),
        ({"kind": "shapes", "path": "train", "size": 16, "count": 20}, 1.0),
    ]
    mixture = open_source({"kind": "mixture", "parts": parts})
    assert open_source(parts).fingerprint() == mixture.fingerprint()
    assert len(mixture) == 80  # 20 of the second, and three times as many of the first
    seen = collections.Counter(mixture.locate(i) for i in range(len(mixture)))
    assert set(seen) == {(0, j) for j in range(10)} | {(1, j) for j in range(20)}
    assert set(seen.values()) == {6, 1}
    assert mixture[0]["key"].startswith("val") and mixture[-1]["key"].startswith(
        "train"
    )
    assert "label" in mixture[0] and len(list(mixture.texts())) == 150


def test_mixture_drops_labels_that_differ(tmp_path):
    from PIL import Image

    (tmp_path / "dog").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "a.png")
    parts = [(SHAPES, 1), (f"folder:{tmp_path}?label=parent&template=a {{}}", 1)]
    mixture = open_source({"kind": "mixture", "parts": parts})
    assert mixture.class_names == () and "label" not in mixture[0]
    assert mixture[-1]["text"] == ["a dog"]
