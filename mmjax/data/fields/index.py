"""A row's own number: the position of its record, for state that is kept by example."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from mmjax.data.fields import base
from mmjax.data.records import Record, Source


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (); -1 in blank rows. `records` is their number, once open."""

    LEARNED: ClassVar[str] = "records"
    records: ClassVar[int] = 0

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((), "int32")}

    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        return True  # every record has a position

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        return {name: np.int32(view.index)}

    def blank(self, name: str) -> base.Arrays:
        return {name: np.int32(-1)}

    def facts(self, name: str) -> dict[str, Any]:
        return {"records": self.records}

    def open(self, name: str, source: Source) -> Self:
        return self.restored(len(source))
