"""A set of boxes, which follow the view that was taken of their image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax.data.fields import base
from mmjax.data.fields import image as image_kind
from mmjax.data.records import Record, Source
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME float32 (count, 4), each (x, y, width, height) in pixels of the view.

    Also NAME_mask bool (count,), False in a slot without a box; NAME_labels int32
    (count,), -1 there; NAME_vectors float32 (count, width). Box k of the record is slot
    k. It is cut off at the view's edge, and left out where it lies outside, or where
    the image itself is blank.

    count: boxes in a row.
    image: the field whose crop they follow; empty leaves pixels of the original.
    cut: whether records with more keep the `count` largest of the view, in their order.
      Without it they are an error.
    labels: the record's value with an integer for each box; empty: none.
    vectors: the record's value with `width` numbers for each box; empty: none.
    """

    VALUE: ClassVar[str] = "boxes"
    AFTER: ClassVar[bool] = True

    count: int = dataclasses.field(kw_only=True)
    image: str = "image"
    cut: bool = False
    labels: str = ""
    vectors: str = ""
    width: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise UserError(f"count {self.count}: use the boxes of a row, 1 or more")
        if bool(self.vectors) != (self.width > 0):
            raise UserError(
                f"vectors {self.vectors!r} with width {self.width}: set both or neither"
            )

    def shapes(self, name: str) -> base.Shapes:
        n = self.count
        out = {name: ((n, 4), "float32"), f"{name}_mask": ((n,), "bool")}
        if self.labels:
            out[f"{name}_labels"] = ((n,), "int32")
        if self.vectors:
            out[f"{name}_vectors"] = ((n, self.width), "float32")
        return out

    def value(self, name: str, record: Mapping[str, Any]) -> Any:
        return record.get(self.reads(name))  # an empty list is a value: no box

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        boxes = self._array(name, record, self.reads(name), 4)
        values = {name: boxes}
        if self.labels:
            values[f"{name}_labels"] = self._array(name, record, self.labels, 0)
        if self.vectors:
            width = self.width
            values[f"{name}_vectors"] = self._array(name, record, self.vectors, width)
        for key, value in values.items():
            if len(value) != len(boxes):
                reason = f"{len(boxes)} boxes, and {len(value)} values of {key}"
                raise base.misfit(name, record, reason)
        out = self.blank(name)
        if self.image in view.absent:
            return out
        values[name] = boxes = self._seen(name, record, boxes, view)
        kept = self._kept(name, record, boxes)
        visible = (boxes[kept, 2:] > 0).all(1)
        slots, kept = np.flatnonzero(visible), kept[visible]
        for key, value in values.items():
            out[key][slots] = value[kept]
        out[f"{name}_mask"][slots] = True
        return out

    def blank(self, name: str) -> base.Arrays:
        out = super().blank(name)
        return out | {key: out[key] - 1 for key in out if key == f"{name}_labels"}

    def check(self, name: str, fields: Mapping[str, Any], source: Source) -> None:
        if self.image and not isinstance(fields.get(self.image), image_kind.Field):
            raise UserError(
                f"{base.place(name)} follows the crop of {self.image!r}, which is no "
                "field of kind image: name one with image, or set image to '' for "
                "pixels of the original"
            )

    def _seen(self, name: str, record: Record, boxes: Any, view: base.View) -> Any:
        if not self.image:
            return boxes
        if self.image not in view.crops:
            reason = (
                f"no view of {self.image!r} is taken, whose crop boxes follow: read"
            )
            fix = f"{self.image!r} too, or set image to '' for pixels of the original"
            raise base.misfit(name, record, f"{reason} {fix}")
        return view.crops[self.image].boxes(boxes)

    def _kept(self, name: str, record: Record, boxes: np.ndarray) -> np.ndarray:
        """Positions of the boxes that have a slot."""
        if len(boxes) <= self.count:
            return np.arange(len(boxes))
        if not self.cut:
            reason = f"{len(boxes)} boxes, and count {self.count}"
            fix = f"set count to {len(boxes)}, or cut to True"
            raise base.misfit(name, record, f"{reason}: {fix}")
        area = boxes[:, 2] * boxes[:, 3]
        return np.sort(np.argsort(-area, kind="stable")[: self.count])

    def _array(self, name: str, record: Record, key: str, width: int) -> np.ndarray:
        """A value of the record: float32 (n, width), or integers (n,) of width 0."""
        shape, kinds = ((width,), "iuf") if width else ((), "iu")
        try:
            array = np.asarray(record[key])
        except (KeyError, ValueError) as error:
            raise base.misfit(name, record, f"no array {key!r}: {error}") from error
        if not array.size:
            return np.zeros((0, *shape), np.float32 if width else np.int32)
        if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
            wanted = f"(n, {width})" if width else "(n,)"
            reason = f"expected {key!r} of shape {wanted}, got {array.shape}"
            raise base.misfit(name, record, reason)
        if array.dtype.kind not in kinds:
            wanted = "numbers" if width else "integers"
            reason = f"expected {key!r} of {wanted}, got {array.dtype}"
            raise base.misfit(name, record, reason)
        return array.astype(np.float32) if width else array
