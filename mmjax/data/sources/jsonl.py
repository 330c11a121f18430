"""One JSON object a line, with the path of its image: `jsonl:/d/captions.jsonl`."""

from __future__ import annotations

import functools
import pathlib

from mmjax import schema
from mmjax.data.sources import table


def rows(file: pathlib.Path) -> list[table.Row]:
    """The rows of a file."""
    return [_row(*line) for line in table.lines(file)]


open = functools.partial(table.open_table, rows)


def _row(number: int, text: str, error: str) -> table.Row:
    if error:
        return table.Row(number, {}, error)
    try:
        fields = schema.parse_json(text)
    except ValueError as bad:
        return table.Row(number, {}, f"bad json: {bad}")
    if not isinstance(fields, dict):
        return table.Row(number, {}, "the line is no json object")
    return table.Row(number, fields)
