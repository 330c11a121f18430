"""A series of vectors over time: a sensor, a motion, features of frames."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from mmjax import schema
from mmjax.data.fields import base, vector
from mmjax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Field(vector.Field):
    """Gives NAME float32 (length, width) and NAME_mask bool (length,).

    A record's value is (n, width), or (n,) for one number a step; `of` may name
    several, which are put side by side.

    length: steps in a row.
    windows: whether longer records are cut: at random in training, to their centre in
      evaluation. Without it they are an error.
    rate: steps a second, which tasks and evaluators see; 0 where it has none.
    """

    AXES: ClassVar[int] = 1

    length: int = dataclasses.field(kw_only=True)
    windows: bool = False
    rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "length")

    def shapes(self, name: str) -> base.Shapes:
        return base.series(name, (self.length, *(self.out or (0,))), "float32")

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        steps = self.numbers(name, record)
        if len(steps) > self.length and not self.windows:
            most = {"length": self.length, "windows": True}
            raise base.misfit(name, record, base.too_many("steps", len(steps), **most))
        at = base.start(len(steps), self.length, rng)
        steps, mask = base.padded(self.normal(steps[at:]), self.length)
        return {name: steps, f"{name}_mask": mask}

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> None:
        return None  # windows are cut row by row

    def facts(self, name: str) -> dict[str, Any]:
        return super().facts(name) | ({"rate": self.rate} if self.rate else {})
