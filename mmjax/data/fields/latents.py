"""Cached arrays of one shape, such as an autoencoder's latents of images."""

import dataclasses
from typing import ClassVar

import numpy as np

from mmjax.data.fields import base
from mmjax.data.fields.numbers import Numbers
from mmjax.data.records import Record


@dataclasses.dataclass(frozen=True)
class Field(Numbers):
    """Gives NAME float32 of `shape`, such as (h, w, c). `normalize` works by channel.

    shape: of a record's array; empty takes what the training records have.
    """

    EMPTY: ClassVar[bool] = True

    shape: tuple[int, ...] = ()

    @property
    def step(self) -> tuple[int, ...]:
        return self.shape or self.learned

    def numbers(self, name: str, record: Record) -> np.ndarray:
        array = self.array(name, record, self.value(name, record))
        if not array.size or self.step not in ((), array.shape):
            reason = f"expected shape {self.step or '(h, w, c)'}, got {array.shape}"
            fix = "set shape to it, or make the latents anew"
            raise base.misfit(name, record, f"{reason}: {fix}")
        return array[None]
