"""An image as uint8 pixels of one size."""

import dataclasses
import logging
from typing import Any, Literal

import numpy as np

from mmjax import schema
from mmjax.data import image, records
from mmjax.data.fields import base
from mmjax.data.image import Crop
from mmjax.data.records import Record, Source
from mmjax.errors import UserError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME uint8 (size, size, 3), RGB. Stored with the checkpoint.

    size: the side in pixels.
    method: how images are resized, one of `mmjax.data.image.METHODS`.
    mode: for evaluation, `crop` (the short side to `size`, and the centre cut out, as
      CLIP does) or `squash` (both sides to `size`).
    train_crop: for training, `square` (a random square of the short side),
      `near_centre` (such a square near the centre; for both see
      `mmjax.data.image.square_crop`) or `resized` (torchvision's random resized crop,
      which stretches what is not square).
    train_zoom: of the two squares, by how much they are resized to more than `size`
      before `size` pixels are cut out: a range of factors.
    train_scale, train_ratio: the random resized crop's range of area, as a share of the
      image's, and of width / height.
    flip: mirrors half of the training images.
    """

    size: int = 224
    method: str = "bilinear"
    mode: Literal["crop", "squash"] = "crop"
    train_crop: Literal["resized", "square", "near_centre"] = "resized"
    train_zoom: tuple[float, float] = (1.0, 1.0)
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
        low, high = self.train_zoom
        if not 1 <= low <= high:
            raise UserError(f"train_zoom {self.train_zoom}: use 1 <= low <= high")
        resized = self.train_crop == "resized"
        unused = ("train_zoom",) if resized else ("train_scale", "train_ratio")
        for key in unused:
            if getattr(self, key) != getattr(Field, key):
                raise UserError(
                    f"{key} {getattr(self, key)} has no part in train_crop "
                    f"{self.train_crop!r}: set it to {getattr(Field, key)}, or "
                    f"train_crop to {'square' if resized else 'resized'}"
                )

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
        still = self._whole and not self.flip
        return {name: values} if fits and still else None

    def check(self, name: str, fields: Any, source: Source) -> None:
        """Logs by how much images of the first one's shape are stretched, if at all."""
        img = self.value(name, records.next_good(source, 0)[0])
        if np.ndim(img) < 3:  # absent, or no image, which others say
            return
        height, width = np.shape(img)[-3:-1]
        aspect = max(height, width) / min(height, width)
        evaluation = aspect if self.mode == "squash" else 1.0
        low, high = self.train_ratio
        train = max(high, 1 / low) if self.train_crop == "resized" else 1.0
        train = 1.0 if self._whole and aspect == 1 else train
        if max(train, evaluation) > 1:
            log.warning(
                f"{base.place(name)} stretches images of {width}x{height} by up to "
                f"{train:.2f} in training and {evaluation:.2f} in evaluation; "
                "train_crop=square and mode=crop stretch nothing"
            )

    @property
    def still(self) -> bool:
        """Whether a training view draws nothing, whatever the image's shape."""
        return self.train_crop == "resized" and self._whole and not self.flip

    @property
    def _whole(self) -> bool:
        """Whether a training view of an image of `size` is the image."""
        range_ = self.train_scale if self.train_crop == "resized" else self.train_zoom
        return range_ == (1, 1)

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
        if rng is None or self._whole and shape == (self.size,) * 2:
            box = (0, 0, *shape)
        elif self.train_crop != "resized":
            near, zoom = self.train_crop == "near_centre", self.train_zoom
            args = shape, rng, self.size
            box = image.square_crop(*args, zoom=zoom, near_centre=near)
        else:
            scale, ratio = self.train_scale, self.train_ratio
            box = image.random_crop(shape, rng, scale=scale, ratio=ratio)
        pixels, crop = image.cut(img, box, self.size, self.method)
        if rng is not None and self.flip and rng.random() < 0.5:
            return pixels[:, ::-1], dataclasses.replace(crop, mirrored=True)
        return pixels, crop
