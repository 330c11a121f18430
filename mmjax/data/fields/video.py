"""A clip of frames, all of them cropped as one."""

import dataclasses
from typing import Any, Literal

import numpy as np

from mmjax import schema
from mmjax.data.fields import base, image
from mmjax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Field(image.Field):
    """Gives NAME uint8 (length, size, size, 3), and NAME_mask bool (length,).

    A record's value is uint8 (N, H, W, 3), RGB. Shorter clips are padded, where the
    mask is False. The crop of an image field is drawn once for the whole clip.

    length: frames in a row.
    pick: `window` (consecutive, at random in training and the centre in evaluation) or
      `even` (one of each of `length` equal parts of the clip: any of it in training,
      the middle in evaluation).
    stride: of a window, every how many frames one is taken.
    """

    length: int = dataclasses.field(kw_only=True)
    pick: Literal["window", "even"] = "window"
    stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "length", "stride")

    def shapes(self, name: str) -> base.Shapes:
        return base.series(name, (self.length, self.size, self.size, 3), "uint8")

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        clip = np.asarray(self.value(name, record))
        if clip.dtype != np.uint8 or clip.shape[3:] != (3,) or not clip.size:
            reason = f"expected uint8 (N, H, W, 3), RGB, got {clip.dtype} {clip.shape}"
            raise base.misfit(name, record, reason)
        clip = clip[self.chosen(len(clip), rng)]
        state = rng.bit_generator.state if view.train else None
        frames = []
        for frame in clip:
            if view.train:  # each frame draws the same crop
                rng.bit_generator.state = state
            row = super().row(name, {self.reads(name): frame}, rng, view)
            frames.append(row[name])
        frames, mask = base.padded(np.stack(frames), self.length)
        return {name: frames, f"{name}_mask": mask}

    def chosen(self, count: int, rng: np.random.Generator | None) -> np.ndarray:
        """Positions of the frames that are taken of `count`, in order."""
        if self.pick == "window":
            at = base.start(count, (self.length - 1) * self.stride + 1, rng)
            return np.arange(at, count, self.stride)[: self.length]
        if count <= self.length:
            return np.arange(count)
        share = 0.5 if rng is None else rng.random(self.length)
        return ((np.arange(self.length) + share) * count / self.length).astype(int)

    def gather(self, name: str, values: np.ndarray) -> None:
        return None
