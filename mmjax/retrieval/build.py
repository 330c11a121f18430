"""A source into an index: every image embedded once, in order, resumable."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import Record, Source
from mmjax.data.sources import views
from mmjax.errors import UserError
from mmjax.retrieval import store

Embed = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def build(
    folder: pathlib.Path,
    source: Source,
    embed: Embed,
    facts: store.Facts,
    batches: Callable[[Source], Iterator[Mapping[str, np.ndarray]]],
    *,
    say: Callable[[int, int], object] = lambda done, total: None,
) -> store.Store:
    """Embeds the images of a source into a new index, or goes on with it.

    Args:
      embed: batch with `image` -> rows (B, d).
      batches: source -> batches with `_mask` and `_index`, as
        `mmjax.data.pipeline.eval_batches` makes them; broken records are left out.
      say: called with the records done and their number, after every batch.

    Raises:
      UserError: see store.Writer; or no image of the source can be read.
    """
    if records.stage1(source):
        raise UserError(
            f"{source.name} holds image tokens and no images: index the source that "
            "it was made of"
        )
    writer, total = store.Writer(folder, facts), len(source)
    first = writer.next_record
    if first < total:
        seen = _Passing(views.apply(source, skip=first) if first else source)
        for batch in batches(seen):
            good_b = np.asarray(batch["_mask"]) > 0
            index_b = np.asarray(batch["_index"])
            rows_bd = np.asarray(embed({"image": batch["image"]}))[good_b]
            items = [seen.item(int(i), first) for i in index_b[good_b]]
            if items:
                writer.add(rows_bd, items)
            say(first + int(index_b.max()) + 1, total)
    writer.close()
    return store.open_store(folder)


class _Passing:
    """A source that remembers the key and captions of what was read, until asked."""

    def __init__(self, source: Source):
        self.source, self._kept = source, {}
        self.name, self.class_names = source.name, source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        record = self.source[i]
        self._kept[int(i)] = str(record["key"]), list(record["text"])
        return record

    def texts(self) -> Iterator[str]:
        return self.source.texts()

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def item(self, i: int, first: int) -> dict[str, Any]:
        """What store.Writer.add keeps of record i; `first` is its source's offset."""
        key, text = self._kept.pop(i)
        return {"record": first + i, "key": key, "text": text}
