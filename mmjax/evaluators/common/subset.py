"""A source as an evaluator reads it: fewer examples, captions kept in passing."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import Record, Source, digest


class View:
    """`limit` evenly spaced records of a source; remembers the captions it passed.

    Evenly spaced and not the first: labelled sets are often sorted by class.
    Remembering lets retrieval learn all captions of an image while the pipeline,
    which encodes one of them, reads the images: nothing is decoded twice.
    """

    def __init__(self, source: Source, limit: int | None = None):
        total = len(source)
        count = total if limit is None else min(limit, total)
        self._source = source
        self._positions = np.arange(count) * total // max(count, 1)
        self._captions: dict[int, tuple[str, ...]] = {}
        self.scenes: dict[int, Any] = {}  # of the drawn records read so far
        self.name: str = source.name
        self.class_names: tuple[str, ...] = tuple(source.class_names)
        self.stage1 = records.stage1(source)
        self.whole = count == total

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, i: int) -> Record:
        record = self._source[int(self._positions[i])]
        self._captions[int(i)] = tuple(record["text"])
        if "scene" in record:
            self.scenes[int(i)] = record["scene"]
        return record

    def captions(self, i: int) -> tuple[str, ...]:
        """All captions of record i, read again only if nobody has read it yet."""
        if i not in self._captions:
            self._captions[i] = tuple(self._source[int(self._positions[i])]["text"])
        return self._captions[i]

    def texts(self) -> Iterator[str]:
        """Every caption of the records in view, in order."""
        if self.whole:
            return self._source.texts()
        return (text for i in range(len(self)) for text in self.captions(i))

    def fingerprint(self) -> str:
        """The source's own where the view is all of it."""
        inner = self._source.fingerprint()
        return inner if self.whole else digest(inner, "evenly spaced", len(self))
