"""Several texts of a record, such as questions or phrases, as token ids."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mmjax import schema
from mmjax.data.fields import base, text
from mmjax.data.records import Record


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
        schema.at_least(1, self, "count")

    def shapes(self, name: str) -> base.Shapes:
        one = super().shapes(name)
        return {key: ((self.count, *shape), kind) for key, (shape, kind) in one.items()}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> list[Any]:
        texts = self.texts(name, record)
        if len(texts) > self.count:
            if not self.cut:
                reason = base.too_many("texts", len(texts), count=self.count, cut=True)
                raise base.misfit(name, record, reason)
            if view.train:
                kept = np.sort(rng.permutation(len(texts))[: self.count])
                texts = [texts[k] for k in kept]
        one = self.reads(name)
        rows = [{one: t} for t in texts[: self.count]]
        return [super(Field, self).row(name, r, rng, view) for r in rows]

    def blank(self, name: str) -> list[Any]:
        return []

    def collate(self, name: str, rows: Sequence[Any]) -> base.Arrays:
        out = base.Field.collate(self, name, [base.Field.blank(self, name)] * len(rows))
        slots = [(b, k) for b, row in enumerate(rows) for k in range(len(row))]
        if slots:
            every = super().collate(name, list(itertools.chain(*rows)))
            for key, values in every.items():
                out[key][tuple(np.transpose(slots))] = values
        return out
