"""Photos with boxes, in COCO's JSON: `coco:/d/instances.json?images=/d/val2017`.

`images` have id and file_name; `annotations` have image_id and, of instances,
category_id and bbox, [x, y, width, height] in pixels, or caption; `categories` have id
and name (Lin et al. 2014).
"""

from __future__ import annotations

import collections
import json
import pathlib
from typing import Any

from mmjax.data.sources import encoded, table
from mmjax.errors import UserError

_VALUES = "boxes,box_labels,box_text"


def open(
    path: str, images: str = "", captions: str = "", crowds: bool = False
) -> table.Table:
    """All photos of a file, those without annotations too.

    images: the folder of the photos (default: the file's own). captions: a file with
    captions of the same photos. crowds: whether boxes around crowds are kept.

    Records have `boxes` float32 (N, 4), `box_labels` int32 (N,), a class's rank among
    the ids of the categories, and `box_text`, the names of the classes.
    """
    file = encoded.existing(path, "annotation file")
    data = _read(file)
    notes = [(file, data)]
    if captions:
        more = encoded.existing(captions, "caption file")
        notes.append((more, _read(more)))
    try:
        categories = sorted((c["id"], c["name"]) for c in data.get("categories", []))
        rank = {number: k for k, (number, _) in enumerate(categories)}
        boxes, texts = collections.defaultdict(list), collections.defaultdict(list)
        for _, document in notes:
            for note in document["annotations"]:
                if "caption" in note:
                    texts[note["image_id"]].append(note["caption"])
                elif crowds or not note.get("iscrowd"):
                    place = rank[note["category_id"]]
                    boxes[note["image_id"]].append((note["bbox"], place))
        rows = [
            table.Row(
                number,
                {
                    "image": photo["file_name"],
                    "captions": texts[photo["id"]],
                    "boxes": [box for box, _ in boxes[photo["id"]]],
                    "box_labels": [k for _, k in boxes[photo["id"]]],
                    "box_text": [categories[k][1] for _, k in boxes[photo["id"]]],
                },
            )
            for number, photo in enumerate(data["images"], 1)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no annotation file of COCO's form: {type(error).__name__} "
            f"{error}; it needs images, annotations and categories"
        ) from None
    text = "captions" if any(texts.values()) else ""
    values = _VALUES if any(boxes.values()) else ""
    source = table.Table(
        file, rows, image="image", text=text, label="", root=images, values=values
    )
    source.name = f"coco:{file}"
    return source


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(table.read(path))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
