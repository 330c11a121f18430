"""A folder of `name.jpg` + `name.txt`, or of one folder a class: `folder:/photos`."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from mmjax.data import records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, label: str = "") -> Folder:
    """Every picture under `path`, at any depth, sorted by path.

    Captions are the lines of the text file of the same name. label=parent: a picture's
    folder is its class instead, and no captions are looked for. A pattern, such as
    label={label}_{speaker}_{n}: its class is the part of its name called `label`, and
    the other parts are values of the record. label=none: neither captions nor classes,
    for an index of bare pictures.
    """
    return Folder(encoded.existing(path, "folder"), label)


class Folder(encoded.Encoded):
    """Files of a folder, in the order of their paths."""

    KIND, TERM, SUFFIXES = "folder", "pictures", encoded.SUFFIXES

    def __init__(self, root: pathlib.Path, label: str):
        if not root.is_dir():
            raise UserError(f"{root} is no folder")
        pattern = "{label}" in label
        if label not in ("", "parent", "none") and not pattern:
            raise UserError(
                f"{self.KIND} option label={label!r}: use label=parent, label=none, a "
                "pattern such as label={label}_{n}, or leave it"
            )
        self.root, self.name = root, f"{self.KIND}:{root}"
        self.files = self.listed()
        self.length = len(self.files)
        if not self.length:
            raise UserError(f"{root} holds no {self.TERM} ({', '.join(self.SUFFIXES)})")
        self.caption_fields = "" if label else "text"
        if label == "parent":
            self._read_labels([{"label": _parent(file)} for file in self.files])
        elif pattern:
            self._read_labels([parts_of(file, label) for file in self.files])

    def listed(self) -> list[str]:
        """The files of the records, relative to the root."""
        return sorted(
            os.path.relpath(os.path.join(folder, file), self.root)
            for folder, _, files in os.walk(self.root)
            for file in files
            if file.rpartition(".")[2].lower() in self.SUFFIXES
        )

    def _read_labels(self, parts: list[dict[str, str]]) -> None:
        self.parts = parts
        self.values = {name: name for name in parts[0] if name != "label"}
        self.class_names = tuple(sorted({part["label"] for part in parts}))
        index = {name: k for k, name in enumerate(self.class_names)}
        self.labels = [index[part["label"]] for part in parts]

    def place(self, i: int) -> str:
        return str(self.root / self.files[i])

    def encoded(self, i: int) -> bytes:
        return encoded.read_file(self.root / self.files[i], self.place(i))

    def fields(self, i: int) -> Mapping[str, Any]:
        key = os.path.splitext(self.files[i])[0]
        if self.class_names:
            return {**self.parts[i], "key": key, "label": self.labels[i]}
        if not self.caption_fields:
            return {"key": self.files[i]}
        path = self.root / f"{key}.txt"
        if not path.exists():
            raise BrokenRecord(self.place(i), f"no captions: {path.name} is missing")
        data = encoded.read_file(path, self.place(i))
        captions = [
            encoded.clean(line, str(path)) for line in data.split(b"\n") if line
        ]
        return {"key": key, "text": captions}

    def fingerprint(self) -> str:
        sizes = [(self.root / file).stat().st_size for file in self.files]
        return records.digest(self.KIND, self.files, sizes, self.class_names)


def _parent(file: str) -> str:
    parent = pathlib.PurePath(file).parent.name
    if not parent:
        raise UserError(f"label=parent, but {file} lies in no class's folder")
    return parent


def parts_of(file: str, pattern: str) -> dict[str, str]:
    """The named parts of a file's name, without its suffix; UserError without them."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    regex = "".join(
        f"(?P<{piece}>.+?)" if k % 2 else re.escape(piece)
        for k, piece in enumerate(pieces)
    )
    stem = pathlib.PurePath(file).stem
    match = re.fullmatch(regex, stem)
    if not match:
        raise UserError(f"label={pattern}: the name {stem!r} of {file} does not fit it")
    return match.groupdict()
