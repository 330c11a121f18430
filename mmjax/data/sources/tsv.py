"""Tab separated lines under a header: `tsv:/d/captions.tsv?text=caption`."""

from __future__ import annotations

from mmjax.data.sources import csv, encoded, table


def open(
    path: str, image: str = "image", text: str = "", label: str = "", root: str = ""
) -> table.Table:
    """Reads `path` (`.gz` too), one row a line. Options as in jsonl.

    A quote inside a cell is a letter like any other; a cell that starts and ends with
    one, as pandas writes it, is unquoted.
    """
    file = encoded.existing(path, "table")
    first, *rest = table.lines(file) or [(1, "", "")]
    header = [_cell(cell) for cell in first[1].split("\t")]
    rows = [_row(header, *line) for line in rest]
    return table.Table(
        file, rows, image=image, text=text or encoded.AUTO, label=label, root=root
    )


def _row(header: list[str], number: int, text: str, error: str) -> table.Row:
    if error:
        return table.Row(number, {}, error)
    return csv.as_row(number, header, [_cell(cell) for cell in text.split("\t")])


def _cell(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell
