"""Comma separated rows under a header: `csv:/d/captions.csv?image=file&text=title`."""

from __future__ import annotations

import csv
import io

from mmjax.data.sources import encoded, table
from mmjax.errors import UserError


def open(
    path: str, image: str = "image", text: str = "", label: str = "", root: str = ""
) -> table.Table:
    """Reads `path` (`.gz` too), quoted as spreadsheets do. Options as in jsonl."""
    file = encoded.existing(path, "table")
    data = table.read(file).removeprefix(b"\xef\xbb\xbf")
    # A quoted field may hold line breaks, so the file is parsed whole; bytes that are
    # not UTF-8 pass through as surrogates and break only the record that holds them.
    reader = csv.reader(io.StringIO(data.decode(errors="surrogateescape"), newline=""))
    try:
        header = next(reader, [])
        rows = []
        for row in reader:
            if row:
                rows.append(as_row(reader.line_num, header, row))
    except csv.Error as error:
        raise UserError(f"{file} line {reader.line_num}: {error}") from None
    return table.Table(
        file, rows, image=image, text=text or encoded.AUTO, label=label, root=root
    )


def as_row(number: int, header: list[str], row: list[str]) -> table.Row:
    """Cells under their header; an unlike number of cells is an error of the row."""
    fields = dict(zip(header, row, strict=False))
    if len(row) != len(header):
        return table.Row(number, fields, f"{len(row)} cells under {len(header)} names")
    return table.Row(number, fields)
