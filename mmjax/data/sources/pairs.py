"""Two sources joined by a value: another modality of the same thing.

{"kind": "pairs", "left": "wav:/d/voices", "right": "folder:/d/faces", "on": "key"}

More than two are joined pair by pair: `left` may be pairs.
"""

import collections
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax.data import records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import views
from mmjax.errors import UserError

log = logging.getLogger(__name__)


def open(
    path: str = "",
    left: str | Mapping[str, Any] = "",
    right: str | Mapping[str, Any] = "",
    on: str = "key",
    how: str = "inner",
) -> "Pairs":
    """Opens both sources and looks up, once, which record belongs to which.

    on: the value, or the table's field, that is equal in both, or `label`, the class's
    name; `a:b` where it is a in the left source and b in the right. Of several
    partners the records of the left source take one after the other: on=label gives
    every image a recording of its digit. how: `inner` leaves out records of the left
    source without a partner, `left` keeps them, and they lack the right's values.

    A value that both have is the left source's, and the right source's is called
    right_NAME. Captions are the left source's where it has some.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if path or not left or not right:
        raise UserError(
            "pairs are written {'kind': 'pairs', 'left': SPEC, 'right': SPEC}"
        )
    if how not in ("inner", "left"):
        raise UserError(f"pairs option how={how!r}: use inner or left")
    return Pairs(open_source(left), open_source(right), on, how)


class Pairs(views.View):
    """Records of the left source with the values of their partners."""

    def __init__(self, left: Source, right: Source, on: str, how: str):
        super().__init__(left)
        self.right, self.on, self.how = right, on, how
        self.name = f"pairs:{left.name}+{right.name}"
        self.class_names = left.class_names or right.class_names
        name, _, other = on.partition(":")
        values = _values(left, name)
        partners = collections.defaultdict(list)
        for j, value in enumerate(_values(right, other or name)):
            partners[value].append(j)
        partners.pop(None, None)
        taken: collections.Counter[str] = collections.Counter()
        self.pairs: list[tuple[int, int]] = []  # (left, right), right -1 for none
        for i, value in enumerate(values):
            if options := partners.get(value):
                self.pairs.append((i, options[taken[value] % len(options)]))
                taken[value] += 1
            elif how == "left":
                self.pairs.append((i, -1))
        if not taken:
            raise UserError(
                f"no record of {left.name} has a partner in {right.name} by {on!r}: "
                f"the one has {values[:3]}, the other {list(partners)[:3]}"
            )
        self.left_out = [*self.left_out, *records.left_out(right)]
        if alone := len(values) - taken.total():
            end = "left out" if how == "inner" else f"without values of {right.name}"
            reason = f"{alone} of {len(values)} records have no partner, and are {end}"
            log.warning("%s: %s", self.name, reason)
            if how == "inner":
                self.left_out.append(BrokenRecord(self.name, reason))
        self.last: tuple[int, Record] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"last": None}

    def __len__(self) -> int:
        return len(self.pairs)

    def at(self, i: int) -> int:
        return self.pairs[records.position(i, len(self))][0]

    def __getitem__(self, i: int) -> Record:
        i, j = self.pairs[records.position(i, len(self))]
        record = dict(self.source[i])
        if j < 0:
            return record
        last = self.last  # neighbours often share one: questions about an image
        if last is None or last[0] != j:
            last = self.last = (j, self.right[j])
        for name, value in last[1].items():
            if name == "text":
                record["text"] = record["text"] or value
            elif name != "key":
                record[f"right_{name}" if name in record else name] = value
        return record

    def captions(self, i: int) -> list[str]:
        i, j = self.pairs[records.position(i, len(self))]
        texts = views.captions(self.source, i)
        return texts or (views.captions(self.right, j) if j >= 0 else [])

    def texts(self) -> Iterator[str]:
        return records.texts(self.captions, len(self))

    def fingerprint(self) -> str:
        both = self.source.fingerprint(), self.right.fingerprint()
        return records.digest("pairs", both, self.on, self.how)


def _values(source: Source, name: str) -> list[str | None]:
    """A value of every record as text; None of broken records and where it lacks."""
    values: list[str | None] = []
    for i in range(len(source)):
        try:
            value = views.fields(source, i).get(name)
            if name == "label" and value is not None and source.class_names:
                value = source.class_names[value] if value >= 0 else None
        except BrokenRecord:
            value = None  # the pipeline meets it, and reports it, if it is kept
        values.append(None if value is None else str(value))
    if all(value is None for value in values):
        raise UserError(f"{source.name} has no value {name!r} to pair records by")
    return values
