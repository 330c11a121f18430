"""Token ids that were made before: of images, by `mmjax data encode`."""

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np

from mmjax.data import records
from mmjax.data.fields import base
from mmjax.data.records import Record, Source
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (length,).

    length: ids in a row; 0 takes what the records have.
    vocab_size: ids are below it; 0 takes any.
    """

    LEARNED: ClassVar[str] = "length"

    length: int = 0
    vocab_size: int = 0

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((self.length,), "int32")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        ids = np.asarray(self.value(name, record))
        wanted = (self.length or len(ids),)
        if ids.shape != wanted or ids.dtype.kind not in "iu":
            reason = f"expected {wanted[0]} ids, got {ids.dtype} {ids.shape}"
            raise base.misfit(name, record, f"{reason}: set length to what there is")
        if self.vocab_size and not (0 <= ids.min() and ids.max() < self.vocab_size):
            reason = f"ids {ids.min()} to {ids.max()}, of a vocabulary of "
            raise base.misfit(name, record, f"{reason}{self.vocab_size}")
        return {name: ids.astype(np.int32)}

    def collate(self, name: str, rows: Any) -> base.Arrays:
        length = max(len(row[name]) for row in rows)
        blank = np.zeros(length, np.int32)  # as long as the others, where length is 0
        return {name: np.stack([r[name] if len(r[name]) else blank for r in rows])}

    def gather(self, name: str, values: np.ndarray) -> base.Arrays:
        return {name: values.astype(np.int32)}

    def facts(self, name: str) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size} if self.vocab_size else {}

    def check(self, name: str, fields: Any, source: Source) -> None:
        for other, field in fields.items():
            if not getattr(field, "still", True):
                raise UserError(
                    f"{source.name} holds image tokens, which are neither cropped nor "
                    f"flipped, and {base.place(other)} has train_crop "
                    f"{field.train_crop}, train_scale {field.train_scale} and flip "
                    f"{field.flip}: set them to resized, (1.0, 1.0) and False, or "
                    "train on the images"
                )

    def open(self, name: str, source: Source) -> Self:
        if self.length:
            return self
        value = self.value(name, records.next_good(source, 0)[0])
        return self.restored(0 if value is None else len(value))
