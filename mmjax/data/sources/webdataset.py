"""Tar shards of `key.jpg` + `key.json` (or `.txt`, `.cls`): `webdataset:/d/x-*.tar`.

Members are found once, by reading their headers and ends, and kept in an index that is
mapped into memory (see `shard_index`), so that any record can be read at once. Shards
may lie in a bucket. Patterns: `*`, `?`, `[0-9]`, `{00000..00012}`, `{train,dev}`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.data import content, records, shard_index, storage, tar_index
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, text: str = "", values: str = "", label: str = "") -> Shards:
    """The shards that match `path`, in sorted order.

    text: caption fields of the json, comma separated (`caption,keywords,labels.de`);
    empty: `captions`, `caption` or `text`, whichever there is. values: other fields
    that records have, `name:field`, comma separated, such as `boxes:objects.bbox`.
    label: the field of the json that is the class; empty: the `.cls` members.
    """
    return Shards(storage.find(path), path, text, values, label)


class Shards(encoded.Encoded):
    """Samples of tar shards. A shard that breaks off ends in one broken record."""

    covers = f"names and sizes, and {content.SAMPLE} bytes at each end of every member"

    def __init__(
        self,
        blobs: Sequence[storage.Blob],
        pattern: str,
        text: str,
        values: str = "",
        label: str = "",
    ):
        self.values, self.label = encoded.pairs_of(values), label
        self.blobs, self.name = tuple(blobs), f"webdataset:{pattern}"
        self.index = shard_index.load(self.blobs, encoded.SUFFIXES)
        shards, self.seen = self.index.shards, {}
        self.left_out = tuple(
            BrokenRecord(f"{blob.path}, {place}", reason)
            for blob, shard in zip(self.blobs, shards, strict=True)
            for place, reason in shard.left_out
        )
        # Of each shard: the end of its records, and where its rows and odd ones begin.
        self.ends = np.cumsum([shard.rows + (shard.cut >= 0) for shard in shards])
        self.rows = np.cumsum([0, *(shard.rows for shard in shards)])
        self.odd = np.cumsum([0, *(shard.odd for shard in shards)])
        self.length = int(self.ends[-1])
        if not self.length:
            raise UserError(f"{pattern} holds no samples: expected key.jpg, key.json")
        parts = int(np.bitwise_or.reduce(self.index.rows["check"], initial=0))
        self.caption_fields = text or encoded.AUTO
        if not parts & 0b0110:
            self.caption_fields = ""
        if label or parts & 0b1000:
            self._read_labels(label)
        self.check_fields()

    def _read_labels(self, label: str) -> None:
        """Labels and class names out of a field of the json or the `.cls` members."""
        words: list[Any] = []
        for i in range(self.length):
            try:
                if label:
                    words.append(self.fields(i).get(label))
                    continue
                data = self._part(i, 3)
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
        facts, path = self.index.shards[shard], self.blobs[shard].path
        if at == facts.rows:
            return f"{path} at byte {facts.cut}"
        try:
            return f"{path}, sample {self._sample(i)[0]}"
        except BrokenRecord as error:
            return error.place

    def encoded(self, i: int) -> bytes:
        data = self._part(i, 0)
        if data is None:
            raise BrokenRecord(self.place(i), "the sample has no image member")
        return data

    def fields(self, i: int) -> Mapping[str, Any]:
        key, _ = self._sample(i)
        out = fields_of(lambda part: self._part(i, part), lambda: self.place(i))
        if self.class_names:
            out["label"] = self.label_of(i)
        return {**out, "key": key}

    def fingerprint(self) -> str:
        shards = [(one.rows, one.cut, one.digest) for one in self.index.shards]
        made = self.caption_fields, self.values, *filter(None, [self.label])
        return records.digest("webdataset", shards, *made)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "seen": {}}

    def _find(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, i, side="right"))
        return shard, i - (int(self.ends[shard - 1]) if shard else 0)

    def _sample(self, i: int) -> tuple[str, dict[int, tuple[int, int]]]:
        """(key, (offset, size) of each part), read in the shard's own headers."""
        before, sample = self.seen.get(threading.get_ident(), (-1, None))
        if before == i:
            return sample
        shard, at = self._find(i)
        facts, blob = self.index.shards[shard], self.blobs[shard]
        if at == facts.rows:
            reason = f"the tar breaks off here ({facts.why}); {at} samples before it "
            reason += "are whole and used, and what came after it is lost: "
            reason += f"{facts.size - facts.cut} bytes of this file, and whatever it "
            raise BrokenRecord(self.place(i), reason + "had beyond them")
        row = self.index.rows[self.rows[shard] + at]
        odd = self.index.odd[self.odd[shard] : self.odd[shard + 1]]
        place = f"{blob.path}, sample number {at}"
        with _readable(place), blob.open() as file:
            sample = tar_index.locate(file, row, odd, encoded.SUFFIXES)
        if sample is None:
            blob.check()
            raise BrokenRecord(place, "its headers are not those that were indexed")
        if row["check"] & tar_index.ODD_BIT and odd[row["start"]]["unclear"]:
            raise BrokenRecord(f"{blob.path}, sample {sample[0]}", tar_index.UNCLEAR)
        self.seen[threading.get_ident()] = i, sample
        return sample

    def _part(self, i: int, part: int) -> bytes | None:
        offset, size = self._sample(i)[1].get(part, (-1, 0))
        if offset < 0:
            return None
        # Opened anew for each read: 10 us, and nothing to share between threads, to
        # carry into worker processes or to run out of.
        blob = self.blobs[self._find(i)[0]]
        place = f"{blob.path} at byte {offset}"
        with _readable(place), blob.open() as file:
            data = file.read_at(offset, size)
        if len(data) != size:
            raise BrokenRecord(place, f"read {len(data)} bytes of {size}")
        return data


def fields_of(
    part: Callable[[int], bytes | None], place: Callable[[], str]
) -> dict[str, Any]:
    """What the json and the text of a sample say, `part` by its number."""
    out: dict[str, Any] = {}
    if (data := part(1)) is not None:
        try:
            out = schema.parse_json(data)
        except ValueError as error:  # bad JSON, or bytes that are not UTF-8
            raise BrokenRecord(place(), f"bad json: {error}") from None
        if not isinstance(out, dict):
            raise BrokenRecord(place(), "the json is no mapping")
    if (data := part(2)) is not None:
        out["text"] = encoded.clean(data, place())
    return out


@contextlib.contextmanager
def _readable(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise BrokenRecord(place, f"cannot read: {reason}") from None
