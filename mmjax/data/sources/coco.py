"""Photos with boxes, in COCO's JSON: `coco:/d/instances.json?images=/d/val2017`.

`images` have id and file_name; `annotations` have image_id and, of instances,
category_id and bbox, [x, y, width, height] in pixels, or caption; `categories` have id
and name (Lin et al. 2014).
"""

import collections

from mmjax import schema
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded, table
from mmjax.errors import UserError


def open(
    path: str, images: str = "", captions: str = "", crowds: bool = False
) -> table.Table:
    """All photos of a file, those without annotations too.

    images: the folder of the photos (default: the file's own). captions: a file with
    captions of the same photos. crowds: whether boxes around crowds are kept.

    Records have `boxes` float32 (N, 4), `box_labels` int32 (N,), a class's rank among
    the ids of the categories, and `box_text`, the names of the classes. Annotations of
    photos that the file does not have are in `left_out`.
    """
    file, documents = encoded.existing(path, "annotation file"), []
    for part in filter(None, (path, captions)):
        part = encoded.existing(part, "annotation file")
        try:
            documents.append(schema.parse_json(table.read(part)))
        except ValueError as error:
            raise UserError(f"{part} is no JSON: {error}") from None
    try:
        kinds = documents[0].get("categories", [])
        names = {kind["id"]: kind["name"] for kind in kinds}
        rank = {number: k for k, number in enumerate(sorted(names))}
        boxes, texts = collections.defaultdict(list), collections.defaultdict(list)
        for document in documents:
            for note in document["annotations"]:
                if "caption" in note:
                    texts[note["image_id"]].append(note["caption"])
                elif crowds or not note.get("iscrowd"):
                    kind = note["category_id"]
                    box = note["bbox"], rank[kind], names[kind]
                    boxes[note["image_id"]].append(box)
        rows = []
        for number, photo in enumerate(documents[0]["images"], 1):
            row = {"image": photo["file_name"], "captions": texts[photo["id"]]}
            for k, name in enumerate(("boxes", "box_labels", "box_text")):
                row[name] = [box[k] for box in boxes[photo["id"]]]
            rows.append(table.Row(number, row))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no annotation file of COCO's form: {type(error).__name__} "
            f"{error}; it needs images, annotations and categories"
        ) from None
    text = "captions" if any(texts.values()) else ""
    values = "boxes,box_labels,box_text" if any(boxes.values()) else ""
    source = table.Table(file, rows, text=text, root=images, values=values)
    source.name = f"coco:{file}"
    known = {photo["id"] for photo in documents[0]["images"]}
    source.left_out = [
        BrokenRecord(f"{file}, image_id {number!r}", "annotations of no photo of it")
        for number in dict.fromkeys([*boxes, *texts])
        if number not in known
    ]
    return source
