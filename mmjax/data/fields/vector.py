"""A vector: one value of a record, or several side by side."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax import schema
from mmjax.data.fields import base
from mmjax.data.fields.numbers import Numbers
from mmjax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Field(Numbers):
    """Gives NAME float32 (width,). `of` may name several values: "height,weight,age".

    width: numbers in a row; 0 takes what the training records have.
    """

    AXES: ClassVar[int] = 0  # of a value, before its numbers

    width: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(0, self, "width")

    @property
    def step(self) -> tuple[int, ...]:
        return (self.width,) if self.width else self.learned

    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        values = [record.get(part) for part in self._parts(name, record)]
        return None if any(value is None for value in values) else values

    def numbers(self, name: str, record: Record) -> np.ndarray:
        parts = self._parts(name, record)
        arrays = [self._rows(name, record, part) for part in parts]
        if len({len(array) for array in arrays}) > 1:
            counts = ", ".join(map(str, map(len, arrays)))
            reason = f"{', '.join(parts)} have {counts} steps: they must have as many"
            raise base.misfit(name, record, reason)
        out = np.concatenate(arrays, axis=1)
        width = out.shape[1]
        if self.step not in ((), (width,)):
            reason = f"expected {self.step[0]} numbers, got {width}"
            fix = f"set width to {width}, or mend the record"
            raise base.misfit(name, record, f"{reason}: {fix}")
        return out

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> Any:
        parts = self._parts(name, columns)
        if any(part not in columns for part in parts):
            return None
        arrays = [np.asarray(columns[part][index]) for part in parts]
        return np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)

    def _parts(self, name: str, record: Mapping[str, Any]) -> list[str]:
        """The values put side by side; or one that holds them all (`fields.encode`)."""
        whole = self.reads(name)
        return [whole] if whole in record else whole.split(",")

    def _rows(self, name: str, record: Record, part: str) -> np.ndarray:
        """A value as (n, width)."""
        array, axes = self.array(name, record, record[part]), self.AXES
        if not axes <= array.ndim <= axes + 1 or not array.size:
            wanted = "(n, width)" if axes else "(width,)"
            reason = f"expected {part!r} of shape {wanted}, got {array.shape}"
            raise base.misfit(name, record, reason)
        return array.reshape(len(array) if axes else 1, -1)
