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
        image.known(self.method)
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
        make = self._training if view.train else self._evaluation
        pixels, view.crops[name] = make(img, rng)
        return {name: pixels}

    def gather(self, name: str, values: np.ndarray, *, train: bool) -> Any:
        shape, dtype = self.shapes(name)[name]
        fits = values.dtype == dtype and values.shape[1:] == shape
        return {name: values} if fits and (self.still or not train) else None

    @property
    def still(self) -> bool:
        """Whether a training view draws nothing."""
        return self.train_scale == (1, 1) and not self.flip

    def train(self, img: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A training view: random resized crop, perhaps mirrored; (size, size, 3)."""
        return self._training(img, rng)[0]

    def evaluate(self, img: np.ndarray) -> np.ndarray:
        """The evaluation view, (size, size, 3)."""
        return self._evaluation(img)[0]

    def _training(self, img: np.ndarray, rng: Any) -> tuple[np.ndarray, Crop]:
        if self.train_scale == (1, 1) and img.shape[:2] == (self.size, self.size):
            pixels, crop = img, self._whole(img)
        else:
            scale, ratio = self.train_scale, self.train_ratio
            box = image.random_crop(img.shape, rng, scale=scale, ratio=ratio)
            pixels, crop = image.cut(img, box, self.size, self.method)
        if self.flip and rng.random() < 0.5:
            return pixels[:, ::-1], dataclasses.replace(crop, mirrored=True)
        return pixels, crop

    def _evaluation(self, img: np.ndarray, rng: Any = None) -> tuple[np.ndarray, Crop]:
        if self.mode == "squash":
            return image.resize(img, self.size, self.method), self._whole(img)
        return image.center_crop(img, self.size, self.method)

    def _whole(self, img: np.ndarray) -> Crop:
        scale = self.size / img.shape[1], self.size / img.shape[0]
        return Crop(scale, (0.0, 0.0), (self.size, self.size))
