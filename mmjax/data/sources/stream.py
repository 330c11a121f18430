"""Shards, tar or Parquet, never indexed and read in order: `stream:gs://b/x-*.tar`.

For training alone. Each epoch has the shards in an order of its own, and rows are drawn
from a window of samples (`mmjax.data.streams`). How many there are, and of which
classes, is not known beforehand. A sample is consecutive members of one key.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data import parquet_rows, records, storage, tar_index, tar_walk
from mmjax.data.records import BrokenRecord, Record
from mmjax.data.sources import encoded, views, webdataset
from mmjax.errors import UserError

_HEAD = 64  # samples that stand for the stream where fields are chosen
Sample = tuple[str, str, dict[int, bytes]]  # place, key, bytes of each part


def open(path: str, text: str = "", values: str = "", window: int = 2048) -> Stream:
    """The shards that match `path`.

    text, values: as of `webdataset`. window: samples of which rows are drawn, at least.
    """
    if window < 1:
        raise UserError(f"window={window}: use 1 sample or more")
    return Stream(storage.find(path), path, text, values, window)


class Stream:
    """Shards to be read in order. It has no records by position, but for `head`, the
    samples that the first shards begin with."""

    class_names: tuple[str, ...] = ()
    covers = "names, sizes and times or ETags of shards"

    def __init__(
        self,
        blobs: Sequence[storage.Blob],
        pattern: str,
        text: str,
        values: str,
        window: int,
    ):
        self.blobs, self.name = tuple(blobs), f"stream:{pattern}"
        self.text, self.values, self.window = text, encoded.pairs_of(values), window
        if not self.head.length:
            raise UserError(f"{pattern} holds no samples: expected key.jpg, key.json")
        self.head.check_fields()

    @functools.cached_property
    def head(self) -> Window:
        """Its first samples as a source of records."""
        every = itertools.chain.from_iterable(map(self.samples, range(len(self.blobs))))
        return self.window_of([s for _, s in itertools.islice(every, _HEAD)])

    def __len__(self) -> int:
        raise UserError(
            f"{self.name} is a stream, for training alone: it has no number of "
            "records, no part and no range of them; read it as webdataset:"
        )

    def __getitem__(self, i: int) -> Record:
        len(self)  # says what a stream is
        raise IndexError(i)

    def texts(self) -> Iterator[str]:
        """Captions of shards here and there, until a tokenizer has enough of them."""
        most, count = views.SAMPLE, len(self.blobs)
        for k in range(count):
            shard = k * 7919 % count if count % 7919 else k
            for _, sample in self.samples(shard, images=False):
                if most := most - 1:
                    yield from records.texts(self.window_of([sample]).captions, 1)
                else:
                    return

    def fingerprint(self) -> str:
        each = [(blob.name, blob.size, blob.stamp) for blob in self.blobs]
        return records.digest("stream", each, self.text, self.values)

    def window_of(self, samples: Sequence[Sample | BrokenRecord]) -> Window:
        """These samples as a source of records."""
        return Window(self.name, samples, self.text or encoded.AUTO, self.values)

    def samples(
        self, shard: int, start: int = 0, *, images: bool = True
    ) -> Iterator[tuple[int, Sample | BrokenRecord]]:
        """(the byte or row where the next begins, sample) of a shard, from one on.

        A BrokenRecord where bytes are lost; where they cannot be read it is the last.
        """
        blob, at = self.blobs[shard], start
        try:
            with blob.open() as file:
                if blob.name.endswith(".parquet"):
                    each = (file, blob.path, start, encoded.SUFFIXES)
                    for key, parts in parquet_rows.rows(*each, images=images):
                        at += 1
                        yield at, (f"{blob.path}, row {at - 1}", key, parts)
                    return
                for group in _grouped(tar_walk.walk(file, start)):
                    if isinstance(group, tar_walk.Damage):
                        place, why = f"{blob.path} at byte {group.start}", group.reason
                        yield max(at, group.end), BrokenRecord(place, why)
                        continue
                    key, members = group
                    place = f"{blob.path}, sample {key}"
                    read = {n: m for n, m in members.items() if images or n}
                    at = max(m.offset + m.size for m in members.values())
                    at += -at % tar_walk.BLOCK
                    parts = {n: file.read_at(m.offset, m.size) for n, m in read.items()}
                    yield at, (place, key, parts)
        except OSError as error:
            reason = f"cannot read on: {error.strerror or error}: its rest is skipped"
            yield blob.size, BrokenRecord(f"{blob.path} at {at}", reason)


def _grouped(
    parts: Iterator[tar_walk.Member | tar_walk.Damage],
) -> Iterator[tuple[str, dict[int, tar_walk.Member]] | tar_walk.Damage]:
    """Consecutive members of a key; a part that comes again begins another sample."""
    key, members = "", {}
    for part in parts:
        if isinstance(part, tar_walk.Damage):
            if part.end >= 0 and members:
                yield key, members
            key, members = "", {}  # the sample that a cut runs through is none
            yield part
            continue
        name, number = tar_index.part_of(part.name, encoded.SUFFIXES)
        if number < 0 or not tar_index.plain(part):
            continue
        if members and (name != key or number in members):
            yield key, members
            members = {}
        key, members = name, {**members, number: part}
    if members:
        yield key, members


class Window(encoded.Encoded):
    """Samples in memory, their files as they are stored."""

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample | BrokenRecord],
        captions: str,
        values: Mapping[str, str],
    ):
        self.name, self.held, self.length = name, samples, len(samples)
        self.caption_fields, self.values = captions, values
        whole = [s[2] for s in samples if not isinstance(s, BrokenRecord)]
        if captions == encoded.AUTO and not any({1, 2} & s.keys() for s in whole):
            self.caption_fields = ""

    def _sample(self, i: int) -> Sample:
        if isinstance(self.held[i], BrokenRecord):
            raise self.held[i]
        return self.held[i]

    def place(self, i: int) -> str:
        held = self.held[i]
        return held.place if isinstance(held, BrokenRecord) else held[0]

    def encoded(self, i: int) -> bytes:
        data = self._sample(i)[2].get(0)
        if data is None:
            raise BrokenRecord(self.place(i), "the sample has no image member")
        return data

    def fields(self, i: int) -> Mapping[str, Any]:
        place, key, parts = self._sample(i)
        return {**webdataset.fields_of(parts.get, lambda: place), "key": key}

    def fingerprint(self) -> str:
        return records.digest(self.name, [self.place(i) for i in range(self.length)])


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` shards in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)
