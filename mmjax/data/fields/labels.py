"""Several classes of a record, by their numbers or names."""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from mmjax.data.fields import base, label
from mmjax.data.records import Record, Source
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(label.Field):
    """Gives NAME bool (classes,), True at the record's classes; there may be none.

    A record's value is a list of class numbers or names, one of them, or bool
    (classes,). `class_names` are the training source's, once it is open.

    classes: how many there are; 0 takes the source's class names.
    """

    EMPTY: ClassVar[bool] = True

    classes: int = 0

    @property
    def count(self) -> int:
        """How many classes there are."""
        return self.classes or len(self.class_names)

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((self.count,), "bool")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        value = self.value(name, record)
        if isinstance(value, np.ndarray) and value.dtype == bool:
            if value.shape != (self.count,):
                reason = f"expected bool ({self.count},), got {value.shape}"
                raise base.misfit(name, record, reason)
            return {name: value}
        out = self.blank(name)
        for entry in value if isinstance(value, list | tuple | np.ndarray) else [value]:
            out[name][self._number(name, record, entry)] = True
        return out

    def blank(self, name: str) -> base.Arrays:
        return base.Field.blank(self, name)

    def gather(self, name: str, values: np.ndarray) -> Any:
        fits = values.dtype == bool and values.shape[1:] == (self.count,)
        return {name: values} if fits else None

    def check(self, name: str, fields: Any, source: Source) -> None:
        if not self.count:
            raise UserError(
                f"{source.name} has no class names for {base.place(name)}: set classes "
                "to the number of classes"
            )

    def restored(self, saved: Sequence[str]) -> Self:
        # other classes than the source's `label` has are known by their numbers alone
        return super().restored(saved if self.classes in (0, len(saved)) else ())

    def _number(self, name: str, record: Record, entry: Any) -> int:
        if isinstance(entry, str) and entry in self.class_names:
            return self.class_names.index(entry)
        if isinstance(entry, numbers.Integral) and 0 <= entry < self.count:
            return int(entry)
        named = "a class name or " if self.class_names else ""
        reason = f"{entry!r} is no class: use {named}a number below {self.count}"
        raise base.misfit(name, record, reason)
