"""One JSON object a line, with the path of its image: `jsonl:/d/captions.jsonl`."""

from __future__ import annotations

import json

from mmjax.data.sources import encoded, table


def open(
    path: str, image: str = "image", text: str = "", label: str = "", root: str = ""
) -> table.Table:
    """Reads `path` (`.gz` too).

    image: the field with the image's path, relative to `root` (default: the file's
    folder). text: caption fields, comma separated, dots enter mappings, lists are
    several captions; empty: `captions`, `caption` or `text`. label: the class's field.
    """
    file = encoded.existing(path, "table")
    rows = [_row(*line) for line in table.lines(file)]
    return table.Table(
        file, rows, image=image, text=text or encoded.AUTO, label=label, root=root
    )


def _row(number: int, text: str, error: str) -> table.Row:
    if error:
        return table.Row(number, {}, error)
    try:
        fields = json.loads(text)
    except ValueError as bad:
        return table.Row(number, {}, f"bad json: {bad}")
    if not isinstance(fields, dict):
        return table.Row(number, {}, "the line is no json object")
    return table.Row(number, fields)
