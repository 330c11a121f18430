"""Two series of one record, the first cut and warped in time by a known map.

{"kind": "warped", "source": "npz:/d/av.npz", "first": "mfcc", "second": "lips",
"first_rate": 50, "second_rate": 25}: records for alignment, and what it should find.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import views
from mmjax.errors import UserError

_PIECES = 5  # of equal length, each with a speed of its own, as in CTW's toy


def open(
    path: str = "",
    source: str | Mapping[str, Any] = "",
    first: str = "",
    second: str = "",
    first_rate: float = 0.0,
    second_rate: float = 0.0,
    warp: float = 0.5,
    shift: float = 0.2,
    seed: int = 0,
) -> Warped:
    """Records with `first` (n, p), `second` (m, q) and `truth` (n, 1), float32.

    `truth` has the frame of `second`, not rounded, that each frame of `first` belongs
    to. Images of 8 bits become grey, in [0, 1], a row a frame.

    first, second: names of the values. first_rate, second_rate: frames a second. warp:
    speeds lie between 1 - warp and 1 + warp. shift: share of the first series that is
    cut off at its ends, at most. seed: of both, together with the record's key.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if bool(path) == bool(source):
        raise UserError("a warped source needs either a path or a source to change")
    for name in ("first", "second"):
        value, rate = {"first": (first, first_rate), "second": (second, second_rate)}[
            name
        ]
        if not value:
            raise UserError(f"warped data have no {name}: give the name of a value")
        if not rate > 0:
            raise UserError(
                f"warped data have no sampling rate of {name} ({value}): give "
                f"{name}_rate, in frames a second"
            )
    if not 0 <= warp < 1 or not 0 <= shift < 0.9:
        raise UserError(f"warp={warp}, shift={shift}: use 0 to below 1, and below 0.9")
    names, ratio = (first, second), second_rate / first_rate
    return Warped(open_source(path or source), names, ratio, warp, shift, seed)


def places(
    rng: np.random.Generator, count: int, *, warp: float, shift: float
) -> np.ndarray:
    """Rising places among `count` frames, drawn: what a warped series shows, (n,)."""
    cut, first = rng.uniform(0, shift), rng.uniform()
    start, stop = cut * first * (count - 1), (1 - cut * (1 - first)) * (count - 1)
    speeds = np.repeat(rng.uniform(1 - warp, 1 + warp, _PIECES), 20)
    travelled = np.append(0, np.cumsum(speeds)) / speeds.sum()
    frames = max(3, round((stop - start) + 1))
    at = np.interp(np.linspace(0, 1, frames), np.linspace(0, 1, 101), travelled)
    return start + (stop - start) * at


def at_places(x_np: np.ndarray, places_t: np.ndarray) -> np.ndarray:
    """Rows between rows, (t, p), by linear interpolation."""
    low = np.minimum(places_t.astype(int), len(x_np) - 2)
    share_t1 = (places_t - low)[:, None]
    return (1 - share_t1) * x_np[low] + share_t1 * x_np[low + 1]


def series_of(record: Mapping[str, Any], name: str, place: str) -> np.ndarray:
    """A value of a record, a row a frame, (n, d); images of 8 bits grey, in [0, 1].

    Raises:
      BrokenRecord: there is none, or it is no series of 3 frames or more.
    """
    if name not in record:
        has = ", ".join(sorted(record))
        raise BrokenRecord(place, f"it has no {name!r}: it has {has}")
    x = np.asarray(record[name])
    if x.ndim < 2 or len(x) < 3 or x.dtype.kind not in "buif":
        raise BrokenRecord(
            place, f"{name} is {x.dtype} {x.shape}: expected 3 frames or more"
        )
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / 255
        x = x.mean(-1) if x.ndim == 4 else x
    return x.reshape(len(x), -1)


class Warped(views.View):
    """Every record warped, the same way each time it is read."""

    def __init__(
        self,
        source: Source,
        names: tuple[str, str],
        ratio: float,
        warp: float,
        shift: float,
        seed: int,
    ):
        super().__init__(source)
        self.names, self.made = names, (ratio, warp, shift, seed)
        self.name = f"warped {source.name}"

    def __getitem__(self, i: int) -> Record:
        record = dict(self.source[i])
        ratio, warp, shift, seed = self.made
        place = f"{self.name}, record {record['key']}"
        first, second = (series_of(record, name, place) for name in self.names)
        own = zlib.crc32(str(record["key"]).encode())
        rng = np.random.default_rng([seed, own])
        at = places(rng, len(first), warp=warp, shift=shift)
        truth = np.clip(at * ratio, 0, len(second) - 1)
        kept = {k: v for k, v in record.items() if k not in self.names}
        series = {"first": at_places(first, at), "second": second, "truth": truth}
        series["truth"] = series["truth"][:, None]
        return kept | {k: v.astype(np.float32) for k, v in series.items()}

    def fingerprint(self) -> str:
        made = ("warped", *self.names, *self.made)
        return records.digest(self.source.fingerprint(), *made)
