"""Rows that name an image file and its captions: the part jsonl, csv and tsv share.

Rows that name the same image are one record with several captions, where nothing else
that records have differs between them; rows of a table without images, one record each.
"""

import contextlib
import gzip
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data import content, records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import columns, encoded
from mmjax.errors import UserError

UNFOLDED = 100  # bytes that a byte of a .gz may become; text becomes 3 to 20
_SMALL = 1 << 26  # bytes that any .gz may become
_OPEN_CLIP = {"image": "filepath", "text": "title"}  # what its tables call them


class Row(NamedTuple):
    """One line of a table. `error` says why it cannot be read; "" when it can."""

    line: int  # counted from 1
    fields: Mapping[str, Any]
    error: str = ""


class Table(encoded.Encoded):
    """Records out of rows of the table at `path`, absolute; see `open_table`."""

    covers = content.COVERS

    def __init__(
        self,
        path: pathlib.Path,
        rows: Sequence[Row],
        *,
        image: str = "image",
        text: str = encoded.AUTO,
        label: str = "",
        root: str = "",
        values: str = "",
        key: str = "",
    ):
        if not rows:
            raise UserError(f"{path} has no rows")
        names = {name for row in rows for name in row.fields}
        if image == "image" and not names & {"image"} and _OPEN_CLIP["image"] in names:
            image = _OPEN_CLIP["image"]
        found = names & set(encoded.AUTO.split(","))
        if text == encoded.AUTO and not found and _OPEN_CLIP["text"] in names:
            text = _OPEN_CLIP["text"]
        self.path, self.root, self.key = path, path.parent / root, key
        self.image = "" if image == "none" else image
        self.values = encoded.pairs_of(values)
        self.name = f"{path.suffixes[0][1:] if path.suffixes else 'table'}:{path}"
        bare = label or not (self.image or names & set(encoded.AUTO.split(",")))
        self.caption_fields = "" if text == encoded.AUTO and bare else text
        grouped: dict[object, list[Row]] = {}
        for row in rows:
            grouped.setdefault(self._group(row, label), []).append(row)
        self.rows = list(grouped.values())
        self.length = len(self.rows)
        good = {i: group[0] for i, group in enumerate(self.rows) if not group[0].error}
        if label:
            self._read_labels(label, good)
        if (
            self.image
            and good
            and all(self.image not in r.fields for r in good.values())
        ):
            raise UserError(
                f"{self.path} has no field {self.image!r} for the image's path: it has "
                f"{', '.join(sorted(next(iter(good.values())).fields))}; name one with "
                "image=, or say image=none"
            )
        self.check_fields()

    def _read_labels(self, label: str, good: Mapping[int, Row]) -> None:
        values = [encoded.pick(row.fields, label) for row in good.values()]
        if all(value is None for value in values):
            has = sorted(set().union(*(row.fields for row in good.values())))
            raise UserError(
                f"{self.path} has no field {label!r}: it has {', '.join(has)}"
            )
        labels, self.class_names = encoded.label_index(values, str(self.path))
        known = dict(zip(good, labels, strict=True))
        self.labels = [known.get(i, "") for i in range(self.length)]

    def _group(self, row: Row, label: str) -> object:
        """What rows of one record have in common."""
        name = row.fields.get(self.image)
        if not self.image or row.error or not isinstance(name, str):
            return row.line
        if not self._captioned(row):
            return row.line  # it breaks no other row
        told = [*filter(None, [self.key, label]), *self.values.values()]
        return name, json.dumps([encoded.pick(row.fields, field) for field in told])

    def _captioned(self, row: Row) -> bool:
        """Whether the captions of a row can be read; true where none are asked for."""
        if not self.caption_fields:
            return True
        try:
            return bool(self._texts_of(row.fields, ""))
        except BrokenRecord:
            return False

    def place(self, i: int) -> str:
        return f"{self.path} line {self.rows[i][0].line}"

    def encoded(self, i: int) -> bytes:
        return encoded.read_file(self.root / self._image_name(i), self.place(i))

    def decode(self, i: int, place: str) -> dict[str, Any]:
        return super().decode(i, place) if self.image else {}

    def fields(self, i: int) -> Mapping[str, Any]:
        rows = self.rows[i]
        for row in rows:
            if row.error:
                raise BrokenRecord(f"{self.path} line {row.line}", row.error)
        out = dict(rows[0].fields)
        if len(rows) > 1:
            for name in self.caption_fields.split(","):
                out[name] = [
                    t for row in rows for t in encoded.listed(row.fields, name)
                ]
        if self.class_names:
            out["label"] = self.label_of(i)
        if self.key or not self.image:
            return {**out, "key": str(rows[0].fields.get(self.key, rows[0].line))}
        return {**out, "key": self._image_name(i)}

    def _image_name(self, i: int) -> str:
        name = self.rows[i][0].fields.get(self.image)
        if not isinstance(name, str) or not name:
            raise BrokenRecord(self.place(i), f"no image path in field {self.image!r}")
        return name

    def fingerprint(self) -> str:
        rows = [[row.fields for row in rows] for rows in self.rows]
        named = self.caption_fields, self.values, self.image, self.key
        names = [str(group[0].fields.get(self.image, "")) for group in self.rows]
        inside = content.sums([self.root / name for name in names if name])
        classes = self.labels, self.class_names
        return records.digest("table", rows, *named, inside, classes)


def open_table(
    read_rows: Callable[[pathlib.Path], list[Row]],
    path: str,
    image: str = "image",
    text: str = "",
    label: str = "",
    root: str = "",
    values: str = "",
    key: str = "",
    vector: str = "",
) -> Table | columns.Columns:
    """Opens a table (`.gz` too); `read_rows` is what jsonl, csv and tsv differ in.

    image: the field with the image's path, relative to `root` (default: the table's
    folder); `none`: a record a row, without images. text: caption fields, comma
    separated, dots enter mappings, lists are several captions; empty: `captions`,
    `caption` or `text`. label: the class's field. values: other fields that records
    have, `name:field`, comma separated. key: the field of the records' names; empty:
    the image's path, or the line's number.

    vector: fields of numbers, comma separated, or a range of them by position, such as
    `4:` (without those of text, label and key). Records then have `vector` float32
    (D,), no image, and every other field, as a number where all are.
    """
    file = encoded.existing(path, "table")
    rows = read_rows(file)
    if vector:
        again = (read_rows, path, image, text, label, root, values, key, vector)
        named = {"text": text, "label": label, "key": key}
        return vectors(file, rows, vector, again=(open_table, again), **named)
    options = {"image": image, "label": label, "root": root, "key": key}
    return Table(file, rows, text=text or encoded.AUTO, values=values, **options)


def vectors(
    path: pathlib.Path, rows: Sequence[Row], vector: str, *, again: tuple, **named: str
) -> columns.Columns:
    """Rows of numbers as arrays; see `open_table`."""
    good = next((row.fields for row in rows if not row.error), None)
    if good is None:
        raise UserError(f"{path} has no rows that can be read")
    special = [name for option in named.values() for name in option.split(",")]
    chosen = vector.split(",")
    if ":" in vector:
        bounds = [int(bound) if bound else None for bound in vector.split(":")]
        chosen = [name for name in list(good)[slice(*bounds)] if name not in special]
    for name in chosen or [vector]:
        if name not in good:
            raise UserError(f"{path} has no field {name!r}: it has {', '.join(good)}")
    numbers, broken = np.zeros((len(rows), len(chosen)), np.float32), {}
    for i, row in enumerate(rows):
        try:
            numbers[i] = [float(row.fields[name]) for name in chosen]
            broken |= {i: f"line {row.line}: {row.error}"} if row.error else {}
        except (ValueError, TypeError, KeyError) as error:
            broken[i] = f"line {row.line}: {row.error or f'no number: {error}'}"
    # A broken row is never handed out: its other cells need only be of their kind.
    fields = [good if i in broken else row.fields for i, row in enumerate(rows)]
    arrays = {"vector": numbers}
    for name in good:
        if name not in chosen:
            cells = np.array([str(row.get(name, "")) for row in fields])
            with contextlib.suppress(ValueError):
                cells = cells if name in special else cells.astype(np.float32)
            arrays[name] = cells
    name = f"{path.suffixes[0][1:]}:{path}"
    return columns.Columns(name, arrays, again=again, broken=broken, **named)


def read(path: pathlib.Path) -> bytes:
    """The file's bytes, unpacked when its name ends in .gz."""
    data = content.read(path)
    if path.suffix != ".gz":
        return data
    limit = max(_SMALL, UNFOLDED * len(data))
    try:
        with gzip.open(path) as file:
            unpacked = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if len(unpacked) > limit:
        raise UserError(
            f"{path} unfolds to more than {limit} bytes, {UNFOLDED} times its size: "
            "unpack it yourself (gunzip) if it is what it says"
        )
    return unpacked


def check_header(path: pathlib.Path, header: Sequence[str]) -> None:
    """UserError where two columns have one name: the values of one would be lost."""
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(
            f"{path} has {header.count(twice[0])} columns called {twice[0]!r}: give "
            "each its own name"
        )


def lines(path: pathlib.Path) -> list[tuple[int, str, str]]:
    """(number from 1, text, error) of each line that is not blank."""
    out = []
    every = read(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, data in enumerate(every, 1):
        text, error = "", ""
        try:
            text = data.decode().rstrip("\r")
        except UnicodeDecodeError as bad:
            error = f"the line is not UTF-8: {bad}"
        if data.strip():
            out.append((number, text, error))
    return out
