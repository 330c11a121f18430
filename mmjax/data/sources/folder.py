"""A folder of `name.jpg` + `name.txt`, or of one folder a class: `folder:/photos`."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from mmjax.data import records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, label: str = "") -> "Folder":
    """Every image under `path`, at any depth, sorted by path.

    Captions are the lines of the text file of the same name. label=parent: an image's
    folder is its class instead, and no captions are looked for. A pattern, such as
    label={label}_{speaker}_{n}: its class is the part of its name called `label`, and
    the other parts are values of the record. label=none: neither captions nor classes,
    for an index of bare images.
    """
    return Folder(encoded.existing(path, "folder"), label)


class Folder(encoded.Encoded):
    """Files of a folder, in the order of their paths."""

    KIND, TERM, SUFFIXES = "folder", "images", encoded.SUFFIXES

    def __init__(self, root: pathlib.Path, label: str):
        if not root.is_dir():
            raise UserError(f"{root} is no folder")
        if label not in ("", "parent", "none") and "{label}" not in label:
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
        if label not in ("", "none"):
            self.parts = [parts_of(file, label) for file in self.files]
            self.values = {name: name for name in self.parts[0] if name != "label"}
            self.class_names = tuple(sorted({part["label"] for part in self.parts}))

    def listed(self) -> list[str]:
        """The files of the records, relative to the root."""
        return sorted(
            os.path.relpath(os.path.join(folder, file), self.root)
            for folder, _, files in os.walk(self.root)
            for file in files
            if self.ours(file)
        )

    def ours(self, file: str) -> bool:
        """Whether a file is one of the kind's, by its suffix."""
        return file.rpartition(".")[2].lower() in self.SUFFIXES

    def place(self, i: int) -> str:
        return str(self.root / self.files[i])

    def encoded(self, i: int) -> bytes:
        return encoded.read_file(self.root / self.files[i], self.place(i))

    def fields(self, i: int) -> Mapping[str, Any]:
        key = os.path.splitext(self.files[i])[0]
        if self.class_names:
            label = self.class_names.index(self.parts[i]["label"])
            return {**self.parts[i], "key": key, "label": label}
        if not self.caption_fields:
            return {"key": self.files[i]}
        path = self.root / f"{key}.txt"
        if not path.exists():
            raise BrokenRecord(self.place(i), f"no captions: {path.name} is missing")
        lines = encoded.read_file(path, self.place(i)).split(b"\n")
        texts = [encoded.clean(line, str(path)) for line in lines if line]
        return {"key": key, "text": texts}

    def fingerprint(self) -> str:
        sizes = [(self.root / file).stat().st_size for file in self.files]
        return records.digest(self.KIND, self.files, sizes, self.class_names)


def parts_of(file: str, pattern: str) -> dict[str, str]:
    """The named parts of a file's name, without its suffix; UserError without them.

    Of the pattern `parent`, the name of its folder as `label`.
    """
    path = pathlib.PurePath(file)
    if pattern == "parent":
        if not path.parent.name:
            raise UserError(f"label=parent, but {file} lies in no class's folder")
        return {"label": path.parent.name}
    regex = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(pattern))
    match = re.fullmatch(regex, path.stem)
    if not match:
        raise UserError(
            f"label={pattern}: the name {path.stem!r} of {file} does not fit it"
        )
    return match.groupdict()
