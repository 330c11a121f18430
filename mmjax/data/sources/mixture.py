"""Several sources as one, by weight.

`{"kind": "mixture", "parts": [("jsonl:/a.jsonl", 3), ("npz:/b.npz", 1)]}`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import Record, Source
from mmjax.data.sources import views
from mmjax.errors import UserError


def open(
    path: str = "", parts: Sequence[tuple[str | Mapping[str, Any], float]] = ()
) -> Mixture:
    """Opens the parts: (spec, weight), weights being shares of the records drawn."""
    from mmjax.data.sources import open_source  # it imports this module

    pairs = not isinstance(parts, str) and parts
    if path or not pairs or any(isinstance(p, str) or len(p) != 2 for p in parts):
        raise UserError(
            f"a mixture of {path or parts!r}: it is written [(spec, weight), ...], or "
            "{'kind': 'mixture', 'parts': [(spec, weight), ...]}"
        )
    return Mixture([(open_source(spec), float(weight)) for spec, weight in parts])


class Mixture:
    """Records of all parts; an epoch is as long as it takes to see each part whole.

    Part k fills a share w_k of the epoch's places, one block after another (training
    shuffles them); a part smaller than its share starts again, record for record.
    """

    def __init__(self, parts: Sequence[tuple[Source, float]]):
        self.sources = [source for source, _ in parts]
        weights = np.array([weight for _, weight in parts], np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise UserError(f"mixture weights {weights.tolist()}: use positive numbers")
        self.shares = weights / weights.sum()
        lengths = np.array([len(source) for source in self.sources])
        epoch = (lengths / self.shares).max()
        counts = [
            max(length, math.floor(epoch * share + 0.5))
            for length, share in zip(lengths.tolist(), self.shares, strict=True)
        ]
        self.ends = np.cumsum(counts)
        self.name = "mixture:" + "+".join(source.name for source in self.sources)
        names = {source.class_names for source in self.sources}
        # Labels of unlike class lists mean nothing together.
        self.class_names = names.pop() if len(names) == 1 else ()
        made = [records.stage1(source) for source in self.sources]
        for source, other in zip(self.sources, made, strict=True):
            if other != made[0]:
                raise UserError(
                    f"a mixture of {self.sources[0].name} ({_say(made[0])}) and "
                    f"{source.name} ({_say(other)}): write both with the same image "
                    "tokenizer, by `mmjax data encode`"
                )
        self.stage1 = made[0]
        self.left_out = [part for s in self.sources for part in records.left_out(s)]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, i: int) -> Record:
        part, j = self.locate(i)
        record = dict(self.sources[part][j])
        if not self.class_names:
            record.pop("label", None)
        return record

    def locate(self, i: int) -> tuple[int, int]:
        """(part, record of that part) of record i."""
        i = records.position(i, len(self))
        part = int(np.searchsorted(self.ends, i, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return part, (i - start) % len(self.sources[part])

    def captions(self, i: int) -> list[str]:
        """The captions of record i, without decoding its image."""
        part, j = self.locate(i)
        return views.captions(self.sources[part], j)

    def encoded(self, i: int) -> bytes:
        """The image of record i as it is stored."""
        part, j = self.locate(i)
        return views.encoded(self.sources[part], j)

    def texts(self) -> Iterator[str]:
        for source in self.sources:
            yield from source.texts()

    def fingerprint(self) -> str:
        parts = [source.fingerprint() for source in self.sources]
        return records.digest("mixture", parts, self.shares.tolist())


def _say(stage1: Mapping[str, Any] | None) -> str:
    return f"tokens of {stage1['fingerprint']}" if stage1 else "images"
