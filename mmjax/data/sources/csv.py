"""Comma separated rows under a header: `csv:/d/captions.csv?image=file&text=title`.

A header with more tabs, or semicolons, than commas says that those separate the cells.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

from mmjax.data.sources import table
from mmjax.errors import UserError

_MARKS = ",\t;"


def rows(file: pathlib.Path) -> list[table.Row]:
    """The rows of a file, quoted as spreadsheets do.

    A quote that is not closed, or not where a cell ends, breaks the row that it stands
    in, and none of those after it.
    """
    data = table.read(file).removeprefix(b"\xef\xbb\xbf")
    # Bytes that are not UTF-8 pass through as surrogates and break only the record
    # that holds them. A quoted field may hold line breaks.
    lines = list(io.StringIO(data.decode(errors="surrogateescape"), newline=""))
    mark = max(_MARKS, key=(lines[0] if lines else "").count)
    (_, header, error), *found = _rows(lines, mark) or [(1, [], "")]
    if error:
        raise UserError(f"{file} line 1, the names of the columns: {error}")
    table.check_header(file, header)
    return [
        table.Row(number, {}, error) if error else as_row(number, header, row)
        for number, row, error in found
        if row or error
    ]


def _rows(lines: Sequence[str], mark: str) -> list[tuple[int, list[str], str]]:
    """(number of its first line, cells, error) of each row."""
    out, start = [], 0
    while start < len(lines):
        reader = csv.reader(_from(lines, start), delimiter=mark, strict=True)
        at = start
        try:
            for row in reader:
                first, at = at, start + reader.line_num
                if at > first + 1 and (inner := _swallowed(row, lines[first:at], mark)):
                    at = first
                    number = first + 1 + inner
                    raise csv.Error(f"it goes on over line {number}, which is a row")
                out.append((first + 1, row, ""))
        except csv.Error as error:
            reason = f"{error}: is a quote not closed, or not doubled inside a cell?"
            out.append((at + 1, [], reason))
        else:
            return out
        start = at + 1
    return out


def _from(lines: Sequence[str], start: int) -> Iterator[str]:
    return (lines[i] for i in range(start, len(lines)))


def _swallowed(row: Sequence[str], lines: Sequence[str], mark: str) -> int:
    """Which line of a row over several is, by its form, another row; 0 for none.

    The cells on one line decide: of `1.png,"a b`, the form of the first.
    """
    forms = [None if re.search(r"[\r\n]", cell) else _form(cell) for cell in row]
    for number, line in enumerate(lines[1:], 1):
        cells = line.rstrip("\r\n").split(mark)
        pairs = itertools.zip_longest(forms, cells)
        if any(forms) and all(f is None or f == _form(c or "") for f, c in pairs):
            return number
    return 0


def _form(cell: str) -> str:
    """A cell with its words all alike: `images/1.png` is `a/a.a`."""
    return re.sub(r"[\w-]+", "a", cell)


open = functools.partial(table.open_table, rows)


def as_row(number: int, header: list[str], row: list[str]) -> table.Row:
    """Cells under their header; an unlike number of cells is an error of the row."""
    fields = dict(zip(header, row, strict=False))
    if len(row) != len(header):
        return table.Row(number, fields, f"{len(row)} cells under {len(header)} names")
    return table.Row(number, fields)
