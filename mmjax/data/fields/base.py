"""What every kind of field has: how a record's value becomes the arrays of a row.

Row p of the training stream is a function of (seed, p): a field draws from the row's
own generator alone, and fields draw one after the other in the order of their names.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from mmjax import schema
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError

Shapes = dict[str, tuple[tuple[int, ...], str]]  # of a row: key -> (shape, dtype)
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass
class View:
    """One look at one record.

    train: random crops, windows and captions; otherwise the evaluation view.
    index: the record's position in its source.
    crops: the crop (`mmjax.data.image.Crop`) that each image field took, by name.
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
    EMPTY: ClassVar[bool] = False  # whether an empty list is a value
    LEARNED: ClassVar[str] = ""  # the attribute that the training data give

    of: str = ""
    optional: bool = False
    drop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise UserError(f"drop {self.drop}: use a share from 0 to below 1")
        if self.drop and not self.optional:
            raise UserError(f"drop {self.drop} makes rows blank: set optional to True")

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
        return {key: np.zeros(*form) for key, form in self.shapes(name).items()}

    def collate(self, name: str, rows: Sequence[Any]) -> Arrays:
        """Rows, one after the other, as arrays of a batch."""
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> Any:
        """What `gather` takes: values of a source's `columns`, or None without them."""
        key = self.reads(name)
        return np.asarray(columns[key][index]) if key in columns else None

    def gather(self, name: str, values: np.ndarray) -> Arrays | None:
        """A whole batch of a source's column, or None where rows have to be made.

        A kind that draws nothing and copies values offers it: it is 10 times as fast.
        """
        return None

    def facts(self, name: str) -> dict[str, Any]:
        """What `Task.check` sees beside the shape, such as `vocab_size`."""
        return {}

    def check(self, name: str, fields: Mapping[str, "Field"], source: Source) -> None:
        """Raises UserError where the config's other fields contradict this one."""

    def open(self, name: str, source: Source) -> Self:
        """This field with all that it takes from the training data in place."""
        return self

    def saved(self) -> Any:
        """What of it travels with a checkpoint, as JSON; None where nothing does."""
        return schema.lists(getattr(self, self.LEARNED) if self.LEARNED else None)

    def restored(self, saved: Any) -> Self:
        """The field that gave `saved`."""
        return self.bound(**{self.LEARNED: schema.tuples(saved)})

    def reads(self, name: str) -> str:
        """The record's value that field `name` reads."""
        return self.of or self.VALUE or name

    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        """The record's value, or None; so is an empty list unless EMPTY."""
        value = record.get(self.reads(name))
        none = not self.EMPTY and isinstance(value, list | tuple) and not value
        return None if none else value

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
    """Where a window of `length` of `count` steps begins: drawn, or the centre."""
    spare = max(0, count - length)
    return spare // 2 if rng is None else int(rng.integers(spare + 1))


def padded(steps: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(the first `length` steps, zeros where there are fewer; bool mask (length,))."""
    out = np.zeros((length, *steps.shape[1:]), steps.dtype)
    out[: len(steps)] = steps[:length]
    return out, np.arange(length) < len(steps)


def series(name: str, shape: tuple[int, ...], dtype: str) -> Shapes:
    """The shapes of an array and of the mask over its first axis."""
    return {name: (shape, dtype), f"{name}_mask": (shape[:1], "bool")}


def too_many(term: str, count: int, /, **options: Any) -> str:
    """Why `count` values do not fit: the first option is the most, the second cuts.

    `too_many("texts", 7, count=5, cut=True)`
    """
    (limit, most), (switch, on) = options.items()
    reason = f"{count} {term}, and {limit} {most}"
    return f"{reason}: set {limit} to {count}, or {switch} to {on}"
