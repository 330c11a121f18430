"""Questions in JSON lines: their fields, answers, splits, and boxes side by side."""

import json

import numpy as np
import pytest

from mmjax.data.sources import open_source
from mmjax.errors import UserError


def entry(number, question="what is it?", answer="red", **more):
    return {"question": question, "answer": answer, "image": number, **more}


@pytest.fixture
def folder(tmp_path):
    """Thirty images, each of one grey, and a list of answers."""
    grey = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    np.savez(tmp_path / "i.npz", image=grey)
    (tmp_path / "answers.txt").write_text("red\nblue\n")
    return tmp_path


def write(folder, entries, **more):
    text = "\n".join(json.dumps(one) for one in entries)
    (folder / "q.jsonl").write_text(text)
    spec = {"kind": "vqa", "path": f"{folder}/q.jsonl"}
    return spec | {"images": f"npz:{folder}/i.npz"} | more


def test_lines_name_image_and_answer(folder):
    entries = [entry(3, answer="blue"), entry(3), entry(1, answer=True)]
    source = open_source(write(folder, entries))
    assert source.class_names == ("blue", "red", "true")
    assert [source[i]["label"] for i in range(3)] == [0, 1, 2]
    assert [source[i]["image"][0, 0, 0] for i in range(3)] == [3, 3, 1]
    assert [source[i]["key"] for i in range(3)] == ["3/1", "3/2", "1/3"]
    assert source[1]["text"] == ["what is it?"] and source[1]["answers"] == ["red"]


def test_a_split_by_images_has_each_on_one_side(folder):
    spec = write(folder, [entry(i % 30) for i in range(60)], group="/")
    parts = [open_source({**spec, "part": part}) for part in ("train", "held_out")]
    seen = [{int(r["image"][0, 0, 0]) for r in part} for part in parts]
    assert not seen[0] & seen[1] and sum(map(len, parts)) == 60


def test_line_n_asks_about_image_n_where_none_is_named(folder):
    entries = [
        {"sentence": f"it is {i}", "label": i < 2, "id": f"{i}-0"} for i in range(3)
    ]
    how = {"question": "sentence", "answer": "label", "image": "none", "key": "id"}
    source = open_source(write(folder, entries, **how))
    assert [source[i]["image"][0, 0, 0] for i in range(3)] == [0, 1, 2]
    assert source.class_names == ("false", "true") and source[2]["label"] == 0
    assert source[1]["key"] == "1-0"


def test_an_answer_outside_the_list(folder):
    more = {"classes": f"{folder}/answers.txt"}
    spec = write(folder, [entry(0), entry(1, answer="purple")], **more)
    source = open_source(spec)
    assert [source[i]["label"] for i in range(2)] == [0, -1]
    with pytest.raises(UserError, match="line 2: its answer 'purple' is none of 2 in"):
        open_source({**spec, "closed": True})


def test_a_question_without_words_is_left_out(folder):
    source = open_source(write(folder, [entry(0), entry(1, " ?! "), entry(2)]))
    assert len(source) == 2
    (left,) = source.left_out
    assert "entry 2: the question ' ?! ' has no words: write one" in str(left)


def test_a_record_without_its_question(folder):
    spec = write(folder, [entry(0), {"answer": "red", "image": 1}])
    with pytest.raises(UserError, match="entry 2 of .*KeyError 'question'"):
        open_source(spec)
    (folder / "q.jsonl").write_text('{"question": "a?"')
    with pytest.raises(UserError, match="q.jsonl has no .*line 1: bad json"):
        open_source(spec)


def test_frames_side_by_side(tmp_path):
    strip = np.zeros((1, 2, 7, 3), np.uint8)  # 3, a gap of 1, 3
    strip[0, :, :3], strip[0, :, 4:] = 5, 9
    np.savez(tmp_path / "s.npz", image=strip)
    spec = {"kind": "frames", "source": f"npz:{tmp_path}/s.npz", "width": 3, "gap": 1}
    frames = open_source(spec)[0]["frames"]
    assert frames.shape == (2, 2, 3, 3)
    assert (frames[0] == 5).all() and (frames[1] == 9).all()
    with pytest.raises(
        UserError, match="height 2, width 3 and gap 1: give height= or width="
    ):
        open_source({**spec, "height": 2})
    with pytest.raises(Exception, match="a strip of 7 columns has no frames of 2"):
        _ = open_source({**spec, "width": 2})[0]


def test_bundle_nlvr(bundle):
    """The two orders of a record's boxes hold the same boxes."""
    file = f"{bundle}/nlvr/nlvr-dev"
    boxes = {"kind": "frames", "width": 100, "gap": 50}
    how = {"question": "sentence", "answer": "label", "image": "none"}
    spec = {"kind": "vqa", "path": f"{file}.jsonl.gz", "key": "identifier", **how}
    one, two = (
        open_source(
            {
                **spec,
                "images": boxes
                | {"source": f"npz:{file}-images.npz?key=example&where=perm:{perm}"},
            }
        )
        for perm in (0, 1)
    )
    assert len(one) == len(two) == 989 and one.class_names == ("false", "true")
    assert sum(one[i]["label"] for i in range(0, 989, 100)) in range(1, 10)
    first, second = one[4]["frames"], two[4]["frames"]
    assert first.shape == (3, 100, 100, 3) and (first != second).any()
    assert {x.tobytes() for x in first} == {x.tobytes() for x in second}
