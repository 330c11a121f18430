"""Published splits: Karpathy's JSON files, and lists of names for any source."""

import json

import numpy as np
import pytest
from PIL import Image
from record_source import Records

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source, views
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val2014").mkdir()
    entries = []
    for i, split in enumerate(["train", "test", "restval", "val", "test"]):
        Image.new("RGB", (5, 4), (10 * i, 0, 0)).save(tmp_path / f"val2014/{i}.png")
        sentences = [{"raw": f" caption {k} of {i} ."} for k in range(7)]
        entries.append({"filename": f"{i}.png", "split": split, "sentences": sentences})
        entries[-1]["filepath"] = "val2014"
    (tmp_path / "dataset.json").write_text(json.dumps({"images": entries}))
    return tmp_path


def test_a_karpathy_split(folder):
    source = open_source(f"karpathy:{folder}/dataset.json")
    assert [source[i]["key"] for i in range(2)] == ["val2014/1.png", "val2014/4.png"]
    assert source[1]["image"][0, 0].tolist() == [40, 0, 0]
    assert source[1]["text"] == [f"caption {k} of 4 ." for k in range(5)]
    more = open_source(f"karpathy:{folder}/dataset.json?split=train,restval&captions=7")
    assert [len(more[i]["text"]) for i in range(len(more))] == [7, 7]
    assert more.fingerprint() != source.fingerprint()
    (folder / "x").mkdir()
    (folder / "val2014").rename(folder / "x" / "val2014")
    moved = open_source(f"karpathy:{folder}/dataset.json?images={folder}/x")
    assert moved[0]["text"] == source.captions(0)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, "?split=dev", "no split 'dev', only restval, test, train, val"),
        (None, "?captions=0", "use 1 or more"),
        ('{"images": [{"filename": "a"}]}', "", r"needs images.*KeyError: 'split'"),
        ("[1]", "", "is no split file"),
        ("{", "", "is no split file"),
    ],
)
def test_a_split_file_that_is_none(folder, text, options, message):
    if text is not None:
        (folder / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(f"karpathy:{folder}/dataset.json{options}")


def test_names_of_any_source(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("4.jpg\nelsewhere/1.png\n\n")
    source = open_source(f"folder:{folder}?label=none&names={names}")
    assert [source[i]["key"] for i in range(len(source))] == [
        "val2014/1.png",
        "val2014/4.png",
    ]
    assert source[0]["text"] == []
    names.write_text("4.jpg\n")
    fewer = open_source(f"folder:{folder}?label=none&names={names}")
    assert len(fewer) == 1 and fewer.fingerprint() != source.fingerprint()


def test_names_that_are_not_there(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("4.jpg\n9.jpg\n")
    with pytest.raises(UserError, match=r"1 of its 2 names, and not \['9.jpg'\]"):
        open_source(f"folder:{folder}?label=none&names={names}")
    (folder / "again").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "again" / "4.png")
    names.write_text("4.jpg\n")
    with pytest.raises(UserError, match="both called 4"):
        open_source(f"folder:{folder}?label=none&names={names}")
    with pytest.raises(UserError, match="cannot be read"):
        open_source(f"folder:{folder}?label=none&names={tmp_path}/none.txt")


def test_names_of_real_shards(bundle, tmp_path):
    shard = f"webdataset:{bundle}/flickr8k/flickr8k-dev-128-00000.tar"
    whole = open_source(shard)
    keys = [whole.fields(i)["key"] for i in (0, 7, 999)]
    (tmp_path / "list.txt").write_text("".join(f"{key}.jpg\n" for key in keys))
    part = open_source(f"{shard}?names={tmp_path}/list.txt")
    assert [part[i]["key"] for i in range(3)] == keys
    assert [len(part[i]["text"]) for i in range(3)] == [5, 5, 5]


def test_where_keeps_broken_records_and_passes_over_others_kinds():
    records = [{"rep": 1}, None, {"other": 1}, {"rep": 2}]
    source = views.apply(Records(records), where="rep:1")
    assert [source.at(i) for i in range(len(source))] == [0, 1]
    with pytest.raises(BrokenRecord):
        source[1]
    with pytest.raises(UserError, match="where='take:1': .* have key, other, rep"):
        views.apply(Records(records), where="take:1")


def test_where_a_value_is_one_of_several(tmp_path):
    np.savez(tmp_path / "x.npz", rep=[1, 2, 1, 3], key=["a", "b", "c", "d"])
    spec = f"npz:{tmp_path}/x.npz"
    keys = [record["key"] for record in open_source(f"{spec}?where=rep:1")]
    assert keys == ["a", "c"]
    both = open_source(f"{spec}?where=rep:2|3")
    assert [record["key"] for record in both] == ["b", "d"]
    assert both.fingerprint() != open_source(spec).fingerprint()
    for where, message in (
        ("rep", "write NAME:VALUE"),
        ("take:1", r"where='take:1': records of .* have"),
        ("rep:2|7", "has rep 7: it has 1, 2, 3"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(f"{spec}?where={where}")
