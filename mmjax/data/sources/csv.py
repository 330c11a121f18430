"""Comma separated rows under a header: `csv:/d/captions.csv?image=file&text=title`."""

from __future__ import annotations

import csv
import functools
import io
import pathlib

from mmjax.data.sources import table
from mmjax.errors import UserError


def rows(file: pathlib.Path) -> list[table.Row]:
    """The rows of a file, quoted as spreadsheets do."""
    data = table.read(file).removeprefix(b"\xef\xbb\xbf")
    # A quoted field may hold line breaks, so the file is parsed whole; bytes that are
    # not UTF-8 pass through as surrogates and break only the record that holds them.
    reader = csv.reader(io.StringIO(data.decode(errors="surrogateescape"), newline=""))
    try:
        header = next(reader, [])
        return [as_row(reader.line_num, header, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{file} line {reader.line_num}: {error}") from None


open = functools.partial(table.open_table, rows)


def as_row(number: int, header: list[str], row: list[str]) -> table.Row:
    """Cells under their header; an unlike number of cells is an error of the row."""
    fields = dict(zip(header, row, strict=False))
    if len(row) != len(header):
        return table.Row(number, fields, f"{len(row)} cells under {len(header)} names")
    return table.Row(number, fields)
