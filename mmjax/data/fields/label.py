"""A class by its number."""

import dataclasses
import numbers
from typing import Any, ClassVar, Self

import numpy as np

from mmjax.data.fields import base
from mmjax.data.records import Record, Source


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (), the index into the training source's class names.

    -1 where a record has no class. `class_names` are the source's, once it is open.
    """

    LEARNED: ClassVar[str] = "class_names"
    class_names: ClassVar[tuple[str, ...]] = ()

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((), "int32")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        value = self.value(name, record)
        if not isinstance(value, numbers.Integral):
            reason = f"expected the number of a class, got {value!r}"
            raise base.misfit(name, record, reason)
        return {name: np.int32(value)}

    def blank(self, name: str) -> base.Arrays:
        return {name: np.int32(-1)}

    def gather(self, name: str, values: np.ndarray) -> Any:
        return {name: values.astype(np.int32)}

    def facts(self, name: str) -> dict[str, Any]:
        return {"class_names": self.class_names}

    def open(self, name: str, source: Source) -> Self:
        return self.restored(source.class_names)
