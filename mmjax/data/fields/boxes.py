"""A set of boxes, which follow the view that was taken of their image."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax import schema
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
    EMPTY: ClassVar[bool] = True

    count: int = dataclasses.field(kw_only=True)
    image: str = "image"
    cut: bool = False
    labels: str = ""
    vectors: str = ""
    width: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "count")
        if bool(self.vectors) != (self.width > 0):
            raise UserError(
                f"vectors {self.vectors!r} with width {self.width}: set both or neither"
            )

    def shapes(self, name: str) -> base.Shapes:
        out = base.series(name, (self.count, 4), "float32")
        if self.labels:
            out[f"{name}_labels"] = ((self.count,), "int32")
        if self.vectors:
            out[f"{name}_vectors"] = ((self.count, self.width), "float32")
        return out

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        values = {name: self._array(name, record, self.reads(name), 4)}
        if self.labels:
            values[f"{name}_labels"] = self._array(name, record, self.labels, 0)
        if self.vectors:
            vectors = self._array(name, record, self.vectors, self.width)
            values[f"{name}_vectors"] = vectors
        for key, value in values.items():
            if len(value) != len(values[name]):
                reason = f"{len(values[name])} boxes, and {len(value)} values of {key}"
                raise base.misfit(name, record, reason)
        out = self.blank(name)
        if self.image in view.absent:
            return out
        if self.image:
            if self.image not in view.crops:
                reason = f"no view of {self.image!r} is taken, whose crop boxes follow"
                fix = "read it too, or set image to '' for pixels of the original"
                raise base.misfit(name, record, f"{reason}: {fix}")
            values[name] = view.crops[self.image].boxes(values[name])
        kept = self._kept(name, record, values[name])
        visible = (values[name][kept, 2:] > 0).all(1)
        for key, value in values.items():
            out[key][: len(kept)][visible] = value[kept[visible]]
        out[f"{name}_mask"][: len(kept)] = visible
        return out

    def blank(self, name: str) -> base.Arrays:
        out, labels = super().blank(name), f"{name}_labels"
        return out | ({labels: out[labels] - 1} if self.labels else {})

    def check(self, name: str, fields: Mapping[str, Any], source: Source) -> None:
        if self.image and not isinstance(fields.get(self.image), image_kind.Field):
            raise UserError(
                f"{base.place(name)} follows the crop of {self.image!r}, which is no "
                "field of kind image: name one with image, or set image to '' for "
                "pixels of the original"
            )

    def _kept(self, name: str, record: Record, boxes: np.ndarray) -> np.ndarray:
        """Positions of the boxes that have a slot."""
        if len(boxes) <= self.count:
            return np.arange(len(boxes))
        if not self.cut:
            reason = base.too_many("boxes", len(boxes), count=self.count, cut=True)
            raise base.misfit(name, record, reason)
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
            array = np.zeros((0, *shape), np.int32)
        if array.shape[:1] + shape != array.shape or array.dtype.kind not in kinds:
            form = f"numbers (n, {width})" if width else "integers (n,)"
            reason = f"expected {key!r} as {form}, got {array.dtype} {array.shape}"
            raise base.misfit(name, record, reason)
        return array.astype(np.float32) if width else array
