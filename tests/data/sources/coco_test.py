import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val").mkdir()
    photos = []
    for number in (7, 9):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"val/{number}.png")
        photos.append({"id": number, "file_name": f"{number}.png"})
    boxes = [
        {"image_id": 9, "category_id": 5, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 9, "category_id": 2, "bbox": [0, 0, 1.5, 2]},
        {"image_id": 9, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    kinds = [{"id": 5, "name": "dog"}, {"id": 2, "name": "cup"}]
    words = [{"image_id": n, "caption": f"photo {n}"} for n in (9, 7, 9)]
    for name, notes in (("boxes", boxes), ("captions", words)):
        document = {"images": photos, "annotations": notes, "categories": kinds}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


def test_boxes_labels_and_captions(folder):
    spec = f"coco:{folder}/boxes.json?images=val"
    source = open_source(f"{spec}&captions={folder}/captions.json")
    assert len(source) == 2 and source[1]["text"] == ["photo 9"] * 2
    record = source[1]
    assert record["image"][0, 0, 0] == 9
    assert record["boxes"].tolist() == [[1, 2, 3, 4], [0, 0, 1.5, 2]]
    assert record["box_labels"].tolist() == [1, 0]  # by the ids of the categories
    assert record["box_text"] == ["dog", "cup"]
    alone = source[0]
    assert alone["boxes"].shape == (0, 4) and alone["boxes"].dtype == np.float32
    assert alone["box_labels"].dtype == np.int32 and alone["box_text"] == []
    assert open_source(spec)[1]["text"] == []
    assert len(open_source(f"{spec}&crowds=true")[1]["boxes"]) == 3
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint() != open_source(spec).fingerprint()


def test_captions_alone(folder):
    source = open_source(f"coco:{folder}/captions.json?images={folder}/val")
    assert source[0]["text"] == ["photo 7"] and "boxes" not in source[0]


def test_annotations_of_no_photo_are_said(folder):
    file = folder / "captions.json"
    document = json.loads(file.read_text())
    document["annotations"].append({"image_id": 8, "caption": "of none"})
    file.write_text(json.dumps(document))
    source = open_source(f"coco:{file}?images={folder}/val")
    assert len(source) == 2
    assert [str(part) for part in source.left_out] == [
        f"{file}, image_id 8: annotations of no photo of it"
    ]


def test_refuses(folder):
    (folder / "boxes.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(UserError, match="COCO's form: KeyError 'file_name'"):
        open_source(f"coco:{folder}/boxes.json")
    (folder / "boxes.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        open_source(f"coco:{folder}/boxes.json")
