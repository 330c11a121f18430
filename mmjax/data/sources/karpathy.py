"""Karpathy's splits of Flickr8k, Flickr30k and COCO: `karpathy:/d/dataset_coco.json`.

One JSON file with `images`: each has `filename` (below `filepath`, where there is one),
`split` and `sentences`, whose `raw` is the caption (Karpathy & Fei-Fei 2015).
"""

from __future__ import annotations

from mmjax import schema
from mmjax.data.sources import encoded, table
from mmjax.errors import UserError

_TAKEN = 5  # captions of an image; COCO has up to 7, and published numbers take 5


def open(
    path: str, images: str = "", split: str = "test", captions: int = _TAKEN
) -> table.Table:
    """The images of a split with their captions.

    images: the folder of the files (default: the JSON's own). split: one of the file's,
    or several, joined by commas, such as train,restval. captions: at most as many of an
    image, its first.
    """
    file = encoded.existing(path, "split file")
    if captions < 1:
        raise UserError(f"karpathy option captions={captions}: use 1 or more")
    try:
        listed = schema.parse_json(table.read(file))["images"]
        entries = [
            (
                str(entry["split"]),
                "/".join(filter(None, [entry.get("filepath"), entry["filename"]])),
                [sentence["raw"] for sentence in entry["sentences"]],
            )
            for entry in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is no split file: it needs images, each with filename, split and "
            f"sentences with raw ({type(error).__name__}: {error})"
        ) from None
    wanted, there = split.split(","), sorted({entry[0] for entry in entries})
    for name in wanted:
        if name not in there:
            raise UserError(f"{file} has no split {name!r}, only {', '.join(there)}")
    rows = [
        table.Row(number, {"image": name, "captions": texts[:captions]})
        for number, (own, name, texts) in enumerate(entries, 1)
        if own in wanted
    ]
    source = table.Table(
        file, rows, image="image", text="captions", label="", root=images
    )
    source.name = f"karpathy:{file}/{split}"
    return source
