"""Drawn pairs of warped views of one smooth curve, no files: `warps:train?count=256`.

A record has `first` (n, 4), `second` (m, 6) and `truth` (n, 1), as of kind `warped`;
everything follows from the record's number.
"""

from collections.abc import Iterator

import numpy as np

from mmjax.data import records
from mmjax.data.records import Record
from mmjax.data.sources import warped
from mmjax.errors import UserError

_FIXED = np.random.default_rng(0)
_MIX = _FIXED.normal(size=(2, 3, 6)).astype(np.float32)


def open(
    split: str,
    count: int = 256,
    frames: int = 40,
    warp: float = 0.5,
    shift: float = 0.2,
    noise: float = 0.05,
) -> "Warps":
    """Opens them.

    split: `train` or `val`, which share no curve. frames: of the curve; `second` has
    two thirds of them. warp, shift: see `warped`. noise: standard deviation, of views
    within about -2 to 2.
    """
    if split not in ("train", "val"):
        raise UserError(f"warps:{split}: use warps:train or warps:val")
    if frames < 9 or count < 1:
        raise UserError(f"count={count}, frames={frames}: use 1 and 9 or more")
    return Warps(split, count, frames, warp, shift, noise)


class Warps:
    """See the module."""

    class_names = ()

    def __init__(self, path: str, count: int, *made: float):
        self.path, self.count, self.made = path, count, made
        self.name = f"warps:{path}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, self.count)
        frames, warp, shift, noise = self.made
        rng = np.random.default_rng([i, len(self.path)])
        time_t1 = np.linspace(0, 1, frames)[:, None]
        turns, phase = rng.uniform(1, 3, (1, 3)), rng.uniform(0, 2 * np.pi, (1, 3))
        curve_t3 = np.sin(2 * np.pi * turns * time_t1 + phase)
        at = warped.places(rng, frames, warp=warp, shift=shift)
        slow = np.linspace(0, frames - 1, round(frames * 2 / 3))
        first = warped.at_places(curve_t3, at) @ _MIX[0, :, :4]
        second = np.tanh(warped.at_places(curve_t3, slow) @ _MIX[1])
        truth = at[:, None] / (slow[1] - slow[0])
        views = {"first": first, "second": second}
        drawn = {k: v + noise * rng.normal(size=v.shape) for k, v in views.items()}
        series = {
            k: v.astype(np.float32) for k, v in (drawn | {"truth": truth}).items()
        }
        return {"key": str(i), "text": [], **series}

    def texts(self) -> Iterator[str]:
        return iter(())

    def fingerprint(self) -> str:
        return records.digest(self.name, self.count, *self.made)
