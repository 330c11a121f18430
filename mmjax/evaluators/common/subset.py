"""A source as an evaluator reads it: fewer examples, captions kept in passing."""

from collections.abc import Iterator
from typing import Any

from mmjax.data.records import Record, Source
from mmjax.data.sources import views


class Subset(views.Chosen):
    """`limit` evenly spaced records of a source; remembers the captions it passed.

    Evenly spaced and not the first: labelled sets are often sorted by class.
    Remembering lets retrieval learn all captions of an image while the pipeline,
    which encodes one of them, reads the images: nothing is decoded twice.
    """

    def __init__(self, source: Source, limit: int | None = None):
        total = len(source)
        count = total if limit is None else min(limit, total)
        positions = [i * total // count for i in range(count)]
        super().__init__(source, positions, ("evenly spaced", count))
        self.whole = count == total
        self.scenes: dict[int, Any] = {}  # of the drawn records read so far
        self._captions: dict[int, tuple[str, ...]] = {}

    def __getitem__(self, i: int) -> Record:
        record = super().__getitem__(i)
        self._captions[int(i)] = tuple(record["text"])
        if "scene" in record:
            self.scenes[int(i)] = record["scene"]
        return record

    def captions(self, i: int) -> tuple[str, ...]:
        """All captions of record i, read again only if nobody has read it yet."""
        if i not in self._captions:
            self._captions[i] = tuple(self.source[self.at(i)]["text"])
        return self._captions[i]

    def texts(self) -> Iterator[str]:
        """Every text of the subset, of none of its images."""
        return self.source.texts() if self.whole else super().texts()

    def fingerprint(self) -> str:
        """The source's own where the subset is all of it."""
        return self.source.fingerprint() if self.whole else super().fingerprint()
