"""A folder of `name.jpg` + `name.txt`, or of one folder a class: `folder:/photos`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax.data import records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, label: str = "") -> Folder:
    """Every picture under `path`, at any depth, sorted by path.

    Captions are the lines of the text file of the same name. label=parent: a picture's
    folder is its class instead, and no captions are looked for. label=none: neither
    is, for an index of bare pictures.
    """
    if label not in ("", "parent", "none"):
        raise UserError(
            f"folder option label={label!r}: use label=parent, label=none or leave it"
        )
    found = Folder(encoded.existing(path, "folder"), labelled=label == "parent")
    if label == "none":
        found.caption_fields = ""
    return found


class Folder(encoded.Encoded):
    """Pictures of a folder, in the order of their paths."""

    def __init__(self, root: pathlib.Path, *, labelled: bool):
        if not root.is_dir():
            raise UserError(f"{root} is no folder")
        self.root, self.name = root, f"folder:{root}"
        self.files = sorted(
            os.path.relpath(os.path.join(folder, file), root)
            for folder, _, files in os.walk(root)
            for file in files
            if file.rpartition(".")[2].lower() in encoded.SUFFIXES
        )
        self.length = len(self.files)
        if not self.length:
            raise UserError(f"{root} holds no pictures ({', '.join(encoded.SUFFIXES)})")
        self.caption_fields = "text"
        if labelled:
            self.caption_fields = ""
            parents = [pathlib.PurePath(file).parent.name for file in self.files]
            if "" in parents:
                stray = self.files[parents.index("")]
                raise UserError(f"label=parent, but {stray} lies in no class's folder")
            self.class_names = tuple(sorted(set(parents)))
            self.labels = [self.class_names.index(parent) for parent in parents]

    def place(self, i: int) -> str:
        return str(self.root / self.files[i])

    def encoded(self, i: int) -> bytes:
        return encoded.read_file(self.root / self.files[i], self.place(i))

    def fields(self, i: int) -> Mapping[str, Any]:
        key = os.path.splitext(self.files[i])[0]
        if self.class_names:
            return {"key": key, "label": self.labels[i]}
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
        return records.digest("folder", self.files, sizes, self.class_names)
