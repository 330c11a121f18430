"""Whole series of a record, brought to the shape that models of several series take.

{"kind": "series", "source": "npz:/d/av.npz", "series": ["mfcc", "frames"], "steps": 20}
has each series of a record at 20 moments, evenly spaced from its begin to its end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import views, warped
from mmjax.errors import UserError


def open(
    path: str = "",
    source: str | Mapping[str, Any] = "",
    series: Sequence[str] = (),
    mask: str = "",
    steps: int = 0,
    center: bool = False,
) -> "Series":
    """Records with every series as float32 (n, d), 8-bit images grey in [0, 1].

    series: names of the values. mask: a value (n,) that says which steps of them count;
    the others are taken out. steps: how many moments each series is read at, between
    its steps; 0 leaves it as it is. center: whether a series loses its mean over the
    record.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if bool(path) == bool(source):
        raise UserError("series need either a path or a source that has them")
    if not series or isinstance(series, str) or steps < 0:
        raise UserError(
            f"series={series!r}, steps={steps}: name the values, such as "
            '["mfcc", "frames"], and 0 steps or more'
        )
    made = mask, steps, center
    return Series(open_source(path or source), tuple(series), made)


class Series(views.View):
    """See the module."""

    def __init__(self, source: Source, names: tuple[str, ...], made: tuple):
        super().__init__(source)
        self.names, self.made, self.name = names, made, f"series of {source.name}"

    def __getitem__(self, i: int) -> Record:
        record, (mask, steps, center) = dict(self.source[i]), self.made
        place = f"{self.name}, record {record['key']}"
        for name in (*self.names, *filter(None, [mask])):
            if name not in record:
                has = ", ".join(sorted(record))
                raise BrokenRecord(place, f"it has no {name!r}: it has {has}")
        for name in self.names:
            x = np.asarray(record[name])
            if x.ndim < 3 and x.dtype.kind in "bui":
                x = x.astype(np.float32)  # numbers of 8 bits, and no image
            x = x[:, None] if x.ndim == 1 else x
            x_nd = warped.series_of({name: x}, name, place)
            if mask:
                keep_n = np.asarray(record[mask]) > 0
                if keep_n.shape != (len(x_nd),):
                    reason = f"{name} has {len(x_nd)} steps, {mask} is {keep_n.shape}"
                    raise BrokenRecord(place, reason)
                x_nd = x_nd[keep_n]
            if steps:
                x_nd = warped.at_places(x_nd, np.linspace(0, len(x_nd) - 1, steps))
            record[name] = np.asarray(x_nd - center * x_nd.mean(0), np.float32)
        return record

    def fields(self, i: int) -> Mapping[str, Any]:
        return self[i]

    def fingerprint(self) -> str:
        return records.digest(
            "series", self.source.fingerprint(), self.names, self.made
        )
