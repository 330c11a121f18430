"""Tar shards of `key.jpg` + `key.json` (or `.txt`, `.cls`): `webdataset:/d/x-*.tar`.

Members are found once, by reading their headers and ends, and their offsets kept in
the user's cache folder, so that any record can be read at once. Patterns: `*`, `?`,
`[0-9]`, `{00000..00012}`, `{train,dev}`.
"""

from __future__ import annotations

import glob
import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import errors, schema
from mmjax.data import content, records, tar_index
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError

_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def open(path: str, text: str = "", values: str = "", label: str = "") -> Shards:
    """The shards that match `path`, in sorted order.

    text: caption fields of the json, comma separated (`caption,keywords,labels.de`);
    empty: `captions`, `caption` or `text`, whichever there is. values: other fields
    that records have, `name:field`, comma separated, such as `boxes:objects.bbox`.
    label: the field of the json that is the class; empty: the `.cls` members.
    """
    return Shards(expand(path), path, text, values, label)


class Shards(encoded.Encoded):
    """Samples of tar shards. A shard that breaks off ends in one broken record."""

    covers = f"names and sizes, and {content.SAMPLE} bytes at each end of every member"

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        pattern: str,
        text: str,
        values: str = "",
        label: str = "",
    ):
        self.values, self.label = encoded.pairs_of(values), label
        self.paths = tuple(paths)
        self.name = f"webdataset:{pattern}"
        self.indices = [tar_index.load(path, encoded.SUFFIXES) for path in self.paths]
        self.left_out = tuple(
            BrokenRecord(f"{path}, {place}", reason)
            for path, index in zip(self.paths, self.indices, strict=True)
            for place, reason in index.left_out.tolist()
        )
        counts = [len(index.keys) + (index.cut >= 0) for index in self.indices]
        self.ends = np.cumsum(counts)
        self.length = int(self.ends[-1])
        if not self.length:
            raise UserError(f"{pattern} holds no samples: expected key.jpg, key.json")
        self.caption_fields = text or encoded.AUTO
        if not any((index.spans[:, 1:3, 0] >= 0).any() for index in self.indices):
            self.caption_fields = ""
        if label or any((index.spans[:, 3, 0] >= 0).any() for index in self.indices):
            self._read_labels(label)
        self.check_fields()

    def _read_labels(self, label: str) -> None:
        """Labels and class names out of a field of the json or the `.cls` members."""
        words: list[Any] = []
        for i in range(self.length):
            shard, at = self._find(i)
            try:
                if label:
                    words.append(self.fields(i).get(label))
                    continue
                whole = at < len(self.indices[shard].keys)
                data = self._part(shard, at, 3) if whole else None
                words.append(None if data is None else data.decode().strip())
            except (BrokenRecord, UnicodeDecodeError):
                words.append(None)  # said where the record is read
        if label and all(word is None for word in words):
            raise UserError(
                f"no json of {self.name} has a field {label!r}: drop label="
            )
        self.labels, self.class_names = encoded.label_index(words, self.name)

    def place(self, i: int) -> str:
        shard, at = self._find(i)
        index, path = self.indices[shard], self.paths[shard]
        if at == len(index.keys):
            return f"{path} at byte {index.cut}"
        return f"{path}, sample {index.keys[at]}"

    def encoded(self, i: int) -> bytes:
        shard, at = self._find(i)
        data = self._part(shard, at, 0)
        if data is None:
            raise BrokenRecord(self.place(i), "the sample has no image member")
        return data

    def fields(self, i: int) -> Mapping[str, Any]:
        shard, at = self._find(i)
        index = self.indices[shard]
        if at == len(index.keys):
            lost = self.paths[shard].stat().st_size - index.cut
            reason = f"the tar breaks off here ({index.why}); {at} samples before it "
            reason += f"are whole and used, and what came after it is lost: {lost} "
            reason += "bytes of this file, and whatever it had beyond them"
            raise BrokenRecord(self.place(i), reason)
        if index.bad[at]:
            raise BrokenRecord(self.place(i), str(index.bad[at]))
        out: dict[str, Any] = {}
        if (data := self._part(shard, at, 1)) is not None:
            try:
                out = schema.parse_json(data)
            except ValueError as error:  # bad JSON, or bytes that are not UTF-8
                raise BrokenRecord(self.place(i), f"bad json: {error}") from None
            if not isinstance(out, dict):
                raise BrokenRecord(self.place(i), "the json is no mapping")
        if (data := self._part(shard, at, 2)) is not None:
            out["text"] = encoded.clean(data, self.place(i))
        if self.class_names:
            out["label"] = self.label_of(i)
        return {**out, "key": str(index.keys[at])}

    def fingerprint(self) -> str:
        shards = [
            (index.keys.tolist(), index.spans.tolist(), index.cut, index.sum)
            for index in self.indices
        ]
        made = self.caption_fields, self.values, *filter(None, [self.label])
        return records.digest("webdataset", shards, *made)

    def _find(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, i, side="right"))
        return shard, i - (int(self.ends[shard - 1]) if shard else 0)

    def _part(self, shard: int, at: int, part: int) -> bytes | None:
        offset, size = self.indices[shard].spans[at, part].tolist()
        if offset < 0:
            return None
        # Opened anew for each read: 10 us, and nothing to share between threads, to
        # carry into worker processes or to run out of.
        place = f"{self.paths[shard]} at byte {offset}"
        try:
            with self.paths[shard].open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise BrokenRecord(place, f"cannot read: {error.strerror}") from None
        if len(data) != size:
            raise BrokenRecord(place, f"read {len(data)} bytes of {size}")
        return data


def expand(pattern: str) -> list[pathlib.Path]:
    """The files that match a brace and glob pattern, sorted; UserError for none."""
    found: list[str] = []
    for name in braces(os.path.expanduser(pattern)):
        if not os.path.exists(name) and glob.has_magic(name):
            found += sorted(glob.glob(name))
        else:
            found.append(name)
    if not found:
        raise UserError(f"no file matches {pattern}")
    for name in found:
        if not os.path.exists(name):
            raise UserError(f"shard {name} does not exist")
        if reason := errors.plain(name):
            raise UserError(f"cannot read shard {name}: {reason}")
    return [pathlib.Path(path).absolute() for path in dict.fromkeys(found)]


def braces(pattern: str) -> list[str]:
    """`a{0..2}{x,y}` as the six names it stands for; widths follow the first number."""
    pieces = _BRACE.split(pattern)
    choices = [[p] if k % 2 == 0 else _choices(p) for k, p in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    if match := _RANGE.fullmatch(inside):
        first, last = match.groups()
        step = 1 if int(last) >= int(first) else -1
        numbers = range(int(first), int(last) + step, step)
        return [f"{n:0{len(first)}d}" for n in numbers]
    return inside.split(",")
