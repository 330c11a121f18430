"""Sources joined by a value: pairs, and questions about images."""

import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def sides(tmp_path):
    np.savez(
        tmp_path / "a.npz", x=np.arange(4.0), name=list("pqrs"), label=[0, 1, 0, 0]
    )
    np.savez(
        tmp_path / "b.npz",
        y=np.arange(3.0) * 10,
        x=np.ones((3, 2)),
        name=list("spz"),
        caption=["of s", "of p", "of z"],
        label=[0, 0, 2],
    )
    left, right = f"npz:{tmp_path}/a.npz", f"npz:{tmp_path}/b.npz"
    return {"kind": "pairs", "left": left, "right": right}


def test_an_inner_join_says_what_it_leaves_out(sides, caplog):
    with caplog.at_level(logging.WARNING):
        source = open_source(sides)
    assert "2 of 4 records have no partner, and are left out" in caplog.text
    assert [source[i]["key"] for i in range(len(source))] == ["p", "s"]
    record = source[0]
    assert record["x"] == 0 and record["right_x"].tolist() == [1, 1]
    assert record["y"] == 10 and record["text"] == ["of p"] and record["label"] == 0
    assert list(source.texts()) == ["of p", "of s"] and source.captions(1) == ["of s"]
    assert source.class_names == ("0", "1")
    copy = pickle.loads(pickle.dumps(source))
    assert copy[1]["y"] == 0 and copy.fingerprint() == source.fingerprint()
    assert not hasattr(source, "columns")


def test_a_left_join_lacks_values(sides, caplog):
    source = open_source({**sides, "how": "left"})
    assert "2 of 4 records have no partner, and are without values" in caplog.text
    assert len(source) == 4 and "y" in source[3]
    assert "y" not in source[1] and source[1]["text"] == []
    assert source.fingerprint() != open_source(sides).fingerprint()


def test_partners_in_turn(sides):
    source = open_source({**sides, "on": "label"})
    assert [source[i]["key"] for i in range(3)] == ["p", "r", "s"]
    assert [source[i]["y"] for i in range(3)] == [0, 10, 0]


def test_three_sources(sides, tmp_path):
    np.savez(tmp_path / "c.npz", z=np.arange(2.0), name=["p", "s"])
    both = {"kind": "pairs", "left": sides, "right": f"npz:{tmp_path}/c.npz"}
    record = open_source(both)[1]
    assert (record["x"], record["y"], record["z"]) == (3, 0, 1)


def test_classes_pair_by_name(tmp_path):
    for name, words in (("a", ["bee", "ant"]), ("b", ["cat", "bee"])):
        np.savez(tmp_path / f"{name}.npz", **{name: [0.0, 1.0]}, label=words)
    left, right = f"npz:{tmp_path}/a.npz", f"npz:{tmp_path}/b.npz"
    spec = {"kind": "pairs", "left": left, "right": right, "on": "label"}
    source = open_source(spec)
    assert len(source) == 1 and source[0]["a"] == 0 and source[0]["b"] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"on": "x:y", "left": "shapes:val?size=16&count=3"}, "has no value 'x'"),
        ({"on": "x:name"}, r"no record of .* by 'x:name'.*\['0.0', .*\['s', 'p'"),
        ({"how": "outer"}, "use inner or left"),
        ({"right": None}, "pairs are written"),
    ],
)
def test_refuses(sides, options, message):
    with pytest.raises(UserError, match=message):
        open_source({**sides, **options})


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "val").mkdir()
    for number in (3, 12):
        name = f"COCO_{number:04d}.png"
        Image.new("RGB", (5, 4), (number, 0, 0)).save(tmp_path / "val" / name)
    return tmp_path


def test_coco_questions(photos):
    asked = [(1, 12, "what?"), (2, 3, "who?"), (3, 12, "why?")]
    questions = [
        {"question_id": q, "image_id": i, "question": text} for q, i, text in asked
    ]
    notes = [
        {
            "question_id": q,
            "multiple_choice_answer": answer,
            "answers": [{"answer": "x"}],
        }
        for q, answer in ((1, "yes"), (3, "7"))
    ]
    (photos / "q.json").write_text(json.dumps({"questions": questions}))
    (photos / "a.json").write_text(json.dumps({"annotations": notes}))
    spec = {
        "kind": "vqa",
        "path": f"{photos}/q.json",
        "images": f"folder:{photos}/val?label=none",
        "name": "COCO_{:04d}.png",
    }
    source = open_source(spec)
    assert [source[i]["image"][0, 0, 0] for i in range(3)] == [12, 3, 12]
    assert source[1]["text"] == ["who?"] and source[1]["key"] == "2"
    assert source.class_names == () and "label" not in source[0]
    source = open_source({**spec, "annotations": f"{photos}/a.json"})
    assert source.class_names == ("7", "yes")
    assert [source[i]["label"] for i in range(3)] == [1, -1, 0]
    assert source[0]["answers"] == ["x"] and "answers" not in source[1]
    (photos / "classes.txt").write_text("no\nyes\n")
    shared = {"annotations": f"{photos}/a.json", "classes": f"{photos}/classes.txt"}
    source = open_source({**spec, **shared})
    assert source.class_names == ("no", "yes")
    assert [source[i]["label"] for i in range(3)] == [1, -1, -1]
    assert pickle.loads(pickle.dumps(source))[2]["text"] == ["why?"]


def test_an_image_is_decoded_once_for_neighbours(photos, monkeypatch):
    entries = [["what?", "yes", 12], ["who?", "no", 12], ["why?", "no", 3]]
    (photos / "q.json").write_text(json.dumps(entries))
    np.savez(photos / "i.npz", image=np.zeros((13, 4, 4), np.uint8))
    source = open_source(f"vqa:{photos}/q.json?images=npz:{photos}/i.npz")
    assert source.class_names == ("no", "yes") and source[2]["label"] == 0
    reads = []
    kind = type(source.right)
    read = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda s, i: reads.append(i) or read(s, i))
    assert [source[i]["text"][0] for i in range(3)] == ["what?", "who?", "why?"]
    assert reads == [12, 3]


def test_vqa_refuses(photos):
    (photos / "q.json").write_text('{"questions": [{"question": "what?"}]}')
    with pytest.raises(UserError, match="needs images=SOURCE"):
        open_source(f"vqa:{photos}/q.json")
    spec = f"vqa:{photos}/q.json?images=folder:{photos}/val?label=none"
    with pytest.raises(UserError, match="easy-VQA's form: KeyError 'question_id'"):
        open_source(spec)
    (photos / "q.json").write_text('[["what?", "yes", 4]]')
    with pytest.raises(UserError, match="no record of .* has a partner"):
        open_source(spec)


def test_bundle_easy_vqa(bundle):
    questions = f"jsonl:{bundle}/easy_vqa/easy_vqa-train-questions.jsonl.gz?image=none"
    source = open_source(
        {
            "kind": "pairs",
            "left": f"{questions}&text=question&label=answer",
            "right": f"npz:{bundle}/easy_vqa/easy_vqa-train-images.npz",
            "on": "image:key",
        }
    )
    assert len(source) == 38575 and len(source.class_names) == 13
    assert source[0]["text"] == ["what is the blue shape?"]
    assert source.class_names[source[0]["label"]] == "rectangle"
