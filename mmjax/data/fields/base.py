"""What every kind of field has: how a record's value becomes the arrays of a row.

Row p of the training stream is a function of (seed, p): a field draws from the row's
own generator alone, and fields draw one after the other in the order of their names.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError

Shapes = dict[str, tuple[tuple[int, ...], str]]  # of a row: key -> (shape, dtype)
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class View:
    """One look at one record.

    train: random crops, windows and captions; otherwise the evaluation view.
    index: the record's position in its source.
    crops: by the name of an image field, the crop it took (`mmjax.data.image.Crop`),
      which boxes follow.
    absent: the names of fields that are blank in this row.
    """

    train: bool
    index: int = -1
    crops: dict[str, Any] = dataclasses.field(default_factory=dict)
    absent: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Field:
    """`config.data.fields.NAME`. A kind is a module of this package with a subclass.

    of: the record's value that is read; empty takes the kind's own, or NAME.
    optional: records may lack it. Their rows are blank, and NAME_present says which.
    drop: the share of training rows that is made blank (modality dropout).
    """

    VALUE: ClassVar[str] = ""  # what `of` is where it is left empty; '': the name
    AFTER: ClassVar[bool] = False  # read after the others, whose crops it follows

    of: str = ""
    optional: bool = False
    drop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise UserError(f"drop {self.drop}: use a share from 0 to below 1")
        if self.drop and not self.optional:
            raise UserError(f"drop {self.drop} makes rows blank: set optional to True")

    # -- what a kind says of itself ----------------------------------------------
    def shapes(self, name: str) -> Shapes:
        """The arrays of a row: key -> (shape, dtype). Keys begin with `name`."""
        raise NotImplementedError

    def row(self, name: str, record: Record, rng: Any, view: View) -> Any:
        """A record's row, for `collate`; arrays by key unless the kind overrides it.

        Args:
          rng: the row's own numpy Generator in training, otherwise None.

        Raises:
          BrokenRecord: the value is not of this field's shape.
        """
        raise NotImplementedError

    def blank(self, name: str) -> Any:
        """The row of a record without this value."""
        return {
            k: np.zeros(shape, kind) for k, (shape, kind) in self.shapes(name).items()
        }

    def collate(self, name: str, rows: Sequence[Any]) -> Arrays:
        """Rows, one after the other, as arrays of a batch."""
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> Any:
        """What `gather` takes: values of a source's `columns`, or None without them."""
        key = self.reads(name)
        return np.asarray(columns[key][index]) if key in columns else None

    def gather(self, name: str, values: np.ndarray, *, train: bool) -> Arrays | None:
        """A whole batch of a source's column, or None where rows have to be made.

        A kind that draws nothing and copies values offers it: it is 10 times as fast.
        """
        return None

    def facts(self, name: str) -> dict[str, Any]:
        """What `Task.check` sees beside the shape, such as `vocab_size`."""
        return {}

    def check(self, name: str, fields: Mapping[str, Field], source: Source) -> None:
        """Raises UserError where the config's other fields contradict this one."""

    # -- what depends on the data -------------------------------------------------
    def open(self, name: str, source: Source) -> Field:
        """This field with all that it takes from the training data in place."""
        return self

    def saved(self) -> Any:
        """What of it travels with a checkpoint, as JSON; None where nothing does."""
        return None

    def restored(self, saved: Any) -> Field:
        """The field that gave `saved`."""
        return self

    # -- for all kinds ---------------------------------------------------------------
    def reads(self, name: str) -> str:
        """The record's value that field `name` reads."""
        return self.of or self.VALUE or name

    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        """The record's value, or None; an empty list counts as none."""
        value = record.get(self.reads(name))
        return None if isinstance(value, list | tuple) and not value else value

    def bound(self, **values: Any) -> Self:
        """A copy with attributes that are no part of the config."""
        other = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(other, name, value)
        return other


def place(name: str) -> str:
    """Where a field is configured, for messages."""
    return f"config.data.fields.{name}"


def misfit(name: str, record: Record, reason: str) -> BrokenRecord:
    """The error of a record whose value does not fit field `name`."""
    return BrokenRecord(f"record {record.get('key', '?')}", f"{place(name)}: {reason}")


def start(count: int, length: int, rng: np.random.Generator | None) -> int:
    """Where a window of `length` of `count` steps begins: drawn, or without `rng` such
    that it is the centre; 0 where there are fewer."""
    spare = max(0, count - length)
    return spare // 2 if rng is None else int(rng.integers(spare + 1))


def padded(steps: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(the first `length` steps, zeros where there are fewer; bool mask (length,))."""
    out = np.zeros((length, *steps.shape[1:]), steps.dtype)
    out[: len(steps)] = steps[:length]
    return out, np.arange(length) < len(steps)
