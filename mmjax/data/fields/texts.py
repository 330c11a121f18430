"""Several texts of a record, such as questions or phrases, as token ids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mmjax.data.fields import base, text
from mmjax.data.records import Record
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(text.Field):
    """Gives NAME int32 (count, L) and NAME_mask bool (count, L).

    Text k of the record is slot k; the mask of a slot without a text is all False.

    count: texts in a row.
    cut: whether records with more lose some: in training `count` of them are drawn (in
      their order), in evaluation the first are taken. Without it they are an error.
    """

    VALUE: ClassVar[str] = ""

    count: int = dataclasses.field(kw_only=True)
    cut: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise UserError(f"count {self.count}: use the texts of a row, 1 or more")

    def shapes(self, name: str) -> base.Shapes:
        one = super().shapes(name)
        return {key: ((self.count, *shape), kind) for key, (shape, kind) in one.items()}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> list[Any]:
        texts = self.texts(name, record)
        if len(texts) > self.count:
            if not self.cut:
                reason = f"{len(texts)} texts, and count {self.count}"
                fix = f"set count to {len(texts)}, or cut to True"
                raise base.misfit(name, record, f"{reason}: {fix}")
            kept = range(self.count)
            if view.train:
                kept = np.sort(rng.permutation(len(texts))[: self.count])
            texts = [texts[k] for k in kept]
        one = self.reads(name)
        return [super(Field, self).row(name, {one: t}, rng, view) for t in texts]

    def blank(self, name: str) -> list[Any]:
        return []

    def collate(self, name: str, rows: Sequence[Any]) -> base.Arrays:
        slots = [(b, k) for b, row in enumerate(rows) for k in range(len(row))]
        at = tuple(np.array(slots, int).reshape(-1, 2).T)
        every = super().collate(name, list(itertools.chain(*rows))) if slots else {}
        out = {}
        for key, (shape, kind) in self.shapes(name).items():
            out[key] = np.zeros((len(rows), *shape), kind)
            if slots:
                out[key][at] = every[key]
        return out
