"""A folder of `name.jpg` + `name.txt`, or of one folder a class: `folder:/photos`."""

import collections
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmjax.data import content, records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, label: str = "") -> "Folder":
    """Every image under `path`, at any depth, sorted by path.

    Captions are the lines of the text file of the same name; where no image has one,
    records have none. label=parent: an image's
    folder is its class instead, and no captions are looked for; classes are sorted, by
    number where all are. Hidden files and folders are left out. A pattern, such as
    label={label}_{speaker}_{n}: its class is the part of its name called `label`, and
    the other parts are values of the record. label=none: neither captions nor classes,
    for an index of bare images.
    """
    return Folder(encoded.existing(path, "folder"), label)


class Folder(encoded.Encoded):
    """Files of a folder, in the order of their paths."""

    covers = content.COVERS

    KIND, TERM, SUFFIXES = "folder", "images", encoded.SUFFIXES
    captioned: Collection[str] = ()  # records with a text file, by their keys

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
        self.caption_fields = "text" if self.captioned and not label else ""
        self.length = len(self.files)
        if not self.length:
            raise UserError(f"{root} holds no {self.TERM} ({', '.join(self.SUFFIXES)})")
        if label not in ("", "none"):
            self._read_labels(label)

    def _read_labels(self, label: str) -> None:
        self.parts = [parts_of(file, label) for file in self.files]
        good = [parts for parts in self.parts if isinstance(parts, dict)]
        if not good:
            raise UserError(f"{self.root}: {self.parts[0]}")
        self.values = {name: name for name in good[0] if name != "label"}
        self.class_names = encoded.class_order(parts["label"] for parts in good)
        rank = {name: k for k, name in enumerate(self.class_names)}
        self.labels = [
            rank[parts["label"]] if isinstance(parts, dict) else parts
            for parts in self.parts
        ]

    def listed(self) -> list[str]:
        """The files of the records, relative to the root; sets `left_out`."""
        self.captioned = captioned = set()
        files, self.left_out = walk(self.root, self.SUFFIXES, captioned)
        keys = {os.path.splitext(file)[0] for file in files}
        reason = f"there are no {self.TERM} of that name"
        for key in sorted(captioned - keys):
            self.left_out.append(BrokenRecord(f"{self.root / key}.txt", reason))
        captioned &= keys
        return files

    def place(self, i: int) -> str:
        return str(self.root / self.files[i])

    def encoded(self, i: int) -> bytes:
        return encoded.read_file(self.root / self.files[i], self.place(i))

    def fields(self, i: int) -> Mapping[str, Any]:
        key = os.path.splitext(self.files[i])[0]
        if self.class_names:
            label = self.label_of(i)
            return {**self.parts[i], "key": key, "label": label}
        if not self.caption_fields:
            return {"key": self.files[i]}
        path = self.root / f"{key}.txt"
        if key not in self.captioned:
            raise BrokenRecord(self.place(i), f"no captions: {path.name} is missing")
        data = encoded.read_file(path, self.place(i)).removeprefix(b"\xef\xbb\xbf")
        lines = [line for line in data.splitlines() if line.strip()]
        texts = [encoded.clean(line, str(path)) for line in lines]
        return {"key": key, "text": texts}

    def contents(self) -> list[str]:
        """The files, relative to the root, that the records are made of."""
        captions = [f"{key}.txt" for key in sorted(self.captioned)]
        return [*self.files, *(captions if self.caption_fields else [])]

    def fingerprint(self) -> str:
        paths = [self.root / file for file in self.contents()]
        sizes = [content.size(path) for path in paths]
        inside, names = content.sums(paths), self.contents()
        return records.digest(self.KIND, names, sizes, inside, self.class_names)


def walk(
    root: pathlib.Path, suffixes: Sequence[str], captioned: set[str] | None = None
) -> tuple[list[str], list[BrokenRecord]]:
    """The files under a folder that have one of the suffixes, relative and sorted.

    Returns them, and what else there is: hidden files and folders with such files,
    links to folders, folders that cannot be read, files of other suffixes, a line for
    each suffix. `.txt` files go into `captioned`, by their names without it.
    """
    files, left, others = [], [], collections.defaultdict(list)

    def unread(error: OSError) -> None:
        left.append(BrokenRecord(str(error.filename), f"cannot read: {error.strerror}"))

    def ours(name: str) -> bool:
        return name.rpartition(".")[2].lower() in suffixes

    for place, folders, names in os.walk(root, onerror=unread):
        folders.sort()
        home = os.path.relpath(place, root)
        for name in [*folders]:
            path = os.path.join(place, name)
            if name.startswith("."):
                folders.remove(name)
                if any(ours(n) for _, _, inside in os.walk(path) for n in inside):
                    left.append(BrokenRecord(path, "a hidden folder"))
            elif os.path.islink(path):
                reason = "a link to a folder: links are not followed, mount or copy it"
                left.append(BrokenRecord(path, reason))
        for name in names:
            file = os.path.normpath(os.path.join(home, name))
            stem, suffix = os.path.splitext(file)
            if name.startswith("."):
                if ours(name):
                    left.append(
                        BrokenRecord(os.path.join(place, name), "a hidden file")
                    )
            elif ours(name):
                files.append(file)
            elif captioned is not None and suffix == ".txt":
                captioned.add(stem)
            else:
                others[suffix].append(file)
    for suffix, group in sorted(others.items()):
        many = f" ({len(group)} such files)" if len(group) > 1 else ""
        term = f"its suffix {suffix} is" if suffix else "without a suffix, it is"
        reason = f"{term} none that is read ({', '.join(suffixes)}){many}"
        left.append(BrokenRecord(str(root / min(group)), reason))
    return sorted(files), left


def parts_of(file: str, pattern: str) -> dict[str, str] | str:
    """The named parts of a file's name, without its suffix, or why it has none.

    Of the pattern `parent`, the name of its folder as `label`.
    """
    path = pathlib.PurePath(file)
    if pattern == "parent":
        if not path.parent.name:
            return f"label=parent, but {file} lies in no class's folder"
        return {"label": path.parent.name}
    regex = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(pattern))
    match = re.fullmatch(regex, path.stem)
    if not match:
        return f"label={pattern}: the name {path.stem!r} of {file} does not fit it"
    return match.groupdict()
