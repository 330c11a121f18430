"""An image as uint8 pixels of one size."""

import dataclasses
from typing import Any, Literal

import numpy as np

from mmjax import schema
from mmjax.data import image
from mmjax.data.fields import base
from mmjax.data.image import Crop
from mmjax.data.records import Record
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME uint8 (size, size, 3), RGB. Stored with the checkpoint.

    size: the side in pixels.
    method: how images are resized, one of `mmjax.data.image.METHODS`.
    mode: for evaluation, `crop` (the short side to `size`, and the centre cut out, as
      CLIP does) or `squash` (both sides to `size`).
    train_scale, train_ratio: the random resized crop's range of area, as a share of the
      image's, and of width / height.
    flip: mirrors half of the training images.
    """

    size: int = 224
    method: str = "bilinear"
    mode: Literal["crop", "squash"] = "crop"
    train_scale: tuple[float, float] = (0.9, 1.0)
    train_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "size")
        if self.method not in image.METHODS:
            legal = ", ".join(image.METHODS)
            raise UserError(f"resize method {self.method!r}: use one of {legal}")
        low, high = self.train_scale
        if not 0 < low <= high <= 1:
            raise UserError(f"train_scale {self.train_scale}: use 0 < low <= high <= 1")
        low, high = self.train_ratio
        if not 0 < low <= high:
            raise UserError(f"train_ratio {self.train_ratio}: use 0 < low <= high")

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((self.size, self.size, 3), "uint8")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        img = np.asarray(self.value(name, record))
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            reason = f"expected uint8 (H, W, 3), RGB, got {img.dtype} {img.shape}"
            raise base.misfit(name, record, reason)
        pixels, view.crops[name] = self.view(img, rng if view.train else None)
        return {name: pixels}

    def gather(self, name: str, values: np.ndarray) -> Any:
        shape, dtype = self.shapes(name)[name]
        fits = values.dtype == dtype and values.shape[1:] == shape
        return {name: values} if fits and self.still else None

    @property
    def still(self) -> bool:
        """Whether a training view draws nothing."""
        return self.train_scale == (1, 1) and not self.flip

    def evaluate(self, img: np.ndarray) -> np.ndarray:
        """The evaluation view, (size, size, 3)."""
        return self.view(img, None)[0]

    def view(
        self, img: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, Crop]:
        """(pixels, Crop): with `rng` the training view, otherwise the evaluation's."""
        if rng is None and self.mode == "crop":
            return image.center_crop(img, self.size, self.method)
        shape = img.shape[:2]
        if rng is None or self.train_scale == (1, 1) and shape == (self.size,) * 2:
            box = (0, 0, *shape)
        else:
            scale, ratio = self.train_scale, self.train_ratio
            box = image.random_crop(shape, rng, scale=scale, ratio=ratio)
        pixels, crop = image.cut(img, box, self.size, self.method)
        if rng is not None and self.flip and rng.random() < 0.5:
            return pixels[:, ::-1], dataclasses.replace(crop, mirrored=True)
        return pixels, crop
