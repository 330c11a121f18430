"""Tables without images, and the values that records take from fields."""

import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


def write(folder, *rows):
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"jsonl:{folder}/x.jsonl"


def test_texts_in_two_languages(tmp_path):
    (tmp_path / "x.tsv").write_text(
        "image\ten\tde\na.jpg\tdog\tHund\na.jpg\tcat\tKatze"
    )
    source = open_source(f"tsv:{tmp_path}/x.tsv?image=none&text=en&values=german:de")
    assert len(source) == 2  # a row a record, whatever its other fields
    assert source[1] == {"text": ["cat"], "key": "3", "german": "Katze"}
    assert list(source.texts()) == ["dog", "cat"]
    named = open_source(f"tsv:{tmp_path}/x.tsv?image=none&key=de")
    assert named[0] == {"text": [], "key": "Hund"}


def test_values_become_arrays(tmp_path):
    objects = [{"box": [1, 2, 3, 4], "name": "dog"}, {"box": [5, 6, 7, 8]}]
    row = {"objects": objects, "f": [0.5, 1], "n": [1, 2], "deep": {"s": "x"}}
    values = "boxes:objects.box,box_text:objects.name,f,n,s:deep.s,gone"
    spec = write(tmp_path, {**row, "gone": 1}, row, {**row, "f": [[1], [2, 3]]})
    source = open_source(f"{spec}?image=none&values={values}")
    record = source[1]
    assert record["boxes"].dtype == np.float32 and record["boxes"].shape == (2, 4)
    assert record["n"].dtype == np.int32 and record["f"].dtype == np.float32
    assert record["box_text"] == ["dog"] and record["s"] == "x"
    assert "gone" not in record and source[0]["gone"] == 1
    with pytest.raises(BrokenRecord, match="its f is no array"):
        source[2]
    with pytest.raises(UserError, match="no values in 'objcts.box'.*with values="):
        open_source(f"{spec}?image=none&values=boxes:objcts.box")


def test_boxes_beside_images(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    spec = write(tmp_path, {"image": "a.png", "caption": "x", "b": [[1, 2, 3, 4.5]]})
    record = open_source(f"{spec}?values=boxes:b")[0]
    assert record["image"].shape == (7, 9, 3) and record["boxes"][0, 3] == 4.5
    with pytest.raises(UserError, match="no field 'img'.*image=none"):
        open_source(f"{spec}?image=img")


def test_bundle_coco_mini(bundle):
    shards = f"{bundle}/coco_mini/coco-mini-train2017-320.tar"
    values = "boxes:objects.bbox_xywh,box_text:objects.category"
    record = open_source(f"webdataset:{shards}?values={values}")[0]
    assert record["boxes"].shape == (33, 4) and record["box_text"][0] == "dog"
    assert len(record["text"]) == 5
