"""Grey pixels of an image, or of one half of it, as a vector."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from mmjax.data.fields import base, vector
from mmjax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Field(vector.Field):
    """Gives NAME float32 (width,): rows of pixels, one after the other, in [0, 1].

    of: uint8 (H, W) or (H, W, 3), whose channels are averaged. Images of one size.
    part: whole, or the half that is taken: of an odd number of pixels, the middle ones
      are in neither.
    """

    VALUE: ClassVar[str] = "image"

    part: Literal["whole", "left", "right", "top", "bottom"] = "whole"

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> Any:
        values = columns.get(self.reads(name))
        if values is None or values.dtype != np.uint8 or values.ndim < 3:
            return None
        if values.ndim == 4 and values.strides[3] == 0:  # grey, shown as RGB
            values = values[..., 0]
        return self._flat(np.asarray(values[index]))

    def _rows(self, name: str, record: Record, part: str) -> np.ndarray:
        image = np.asarray(record[part])
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            reason = f"expected uint8 (H, W) or (H, W, C), got {image.dtype}"
            raise base.misfit(name, record, f"{reason} {image.shape}")
        return self._flat(image[None])

    def _flat(self, images: np.ndarray) -> np.ndarray:
        """(n, H, W) or (n, H, W, C) to (n, width) float32."""
        h, w = (size // 2 for size in images.shape[1:3])
        cut = {
            "left": (slice(None), slice(None, w)),
            "right": (slice(None), slice(-w, None)),
            "top": (slice(None, h),),
            "bottom": (slice(-h, None),),
        }.get(self.part, ())
        images = images[(slice(None), *cut)]
        if images.ndim == 4:
            # an exact sum: grey images come out as they are
            images = images.sum(-1, dtype=np.int32) / np.float32(images.shape[-1])
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
