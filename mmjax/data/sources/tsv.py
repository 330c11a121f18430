"""Tab separated lines under a header: `tsv:/d/captions.tsv?text=caption`."""

from __future__ import annotations

import functools
import pathlib

from mmjax.data.sources import csv, table


def rows(file: pathlib.Path) -> list[table.Row]:
    """The rows of a file, one a line.

    A quote inside a cell is a letter like any other; a cell that starts and ends with
    one, as pandas writes it, is unquoted.
    """
    first, *rest = table.lines(file) or [(1, "", "")]
    header = [_cell(cell) for cell in first[1].split("\t")]
    table.check_header(file, header)
    return [_row(header, *line) for line in rest]


open = functools.partial(table.open_table, rows)


def _row(header: list[str], number: int, text: str, error: str) -> table.Row:
    if error:
        return table.Row(number, {}, error)
    return csv.as_row(number, header, [_cell(cell) for cell in text.split("\t")])


def _cell(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell
