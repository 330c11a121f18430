"""Short windows of long series, as records: what is heard and seen at one moment.

{"kind": "windows", "source": "npz:/d/av.npz", "series": {"mfcc": 8, "lips": 4}} has a
record for every moment of every record of the source, with 8 steps of the one and the 4
of the other that they last as long as. Every series stays in memory.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import views, warped
from mmjax.errors import UserError


def open(
    path: str = "",
    source: str | Mapping[str, Any] = "",
    series: Mapping[str, int] | None = None,
    stride: int = 1,
    center: bool = False,
    noisy: str = "",
    snr: float = math.inf,
    seed: int = 0,
) -> "Windows":
    """Records with every series as float32 (steps, d), 8-bit images grey in [0, 1].

    series: value -> steps of a window. Values are taken to begin and end together, so
    that the steps say how their rates compare. stride: steps of the slowest series from
    window to window. center: whether a series loses its mean over the whole record.
    noisy, snr: the series that Gaussian noise is added to, and the ratio of the
    series' variance to the noise's in decibels, column by column. seed: of the noise,
    together with the record's key.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if bool(path) == bool(source):
        raise UserError("windows need either a path or a source with series")
    lengths = {name: int(steps) for name, steps in (series or {}).items()}
    if not lengths or min(lengths.values()) < 1 or stride < 1:
        raise UserError(
            f"windows of series={lengths} with stride={stride}: give every series' "
            'steps, such as {"mfcc": 8, "frames": 4}, and a stride of 1 or more'
        )
    if (noisy or snr != math.inf) and (noisy not in lengths or snr == math.inf):
        raise UserError(
            f"noisy={noisy!r}, snr={snr}: name one of {', '.join(lengths)}, and give "
            "snr in decibels"
        )
    made = stride, center, noisy, snr, seed
    return Windows(open_source(path or source), lengths, made)


class Windows(views.View):
    """See the module.

    groups: (N,), which record of the source each window is of; places: (N,), where in
    it, from 0 to 1.
    """

    def __init__(self, source: Source, lengths: dict[str, int], made: tuple):
        super().__init__(source)
        self.lengths, self.made = lengths, made
        self.name, self.left_out = f"windows of {source.name}", list(self.left_out)
        self.whole: list[dict[str, Any]] = []  # records with whole series
        self.origins: list[int] = []  # where they lie in the source
        groups, starts, places = [], [], []
        for i in range(len(source)):
            try:
                record = self._read(i)
            except BrokenRecord as error:
                self.left_out.append(error)
                continue
            spare = self._spare(record)
            if spare < 0:
                has = {name: len(record[name]) for name in lengths}
                reason = f"its steps {has} are fewer than a window's {lengths}"
                self.left_out.append(BrokenRecord(self._place(record), reason))
                continue
            at = np.arange(0, spare + 1, made[0])
            groups += [len(self.whole)] * len(at)
            starts += at.tolist()
            places += (at / max(spare, 1)).tolist()
            self.whole.append(record)
            self.origins.append(i)
        if not groups:
            reason = f"; {self.left_out[0]}" if self.left_out else ""
            raise UserError(f"{self.name}: no record is as long as a window{reason}")
        self.groups, self.starts = np.array(groups), np.array(starts)
        self.places = np.array(places)

    def _place(self, record: Mapping[str, Any]) -> str:
        return f"{self.name}, record {record['key']}"

    def _spare(self, record: Mapping[str, Any]) -> int:
        """Steps of the slowest series that a window can be moved by."""
        least = min(self.lengths.values())
        return min(
            (len(record[name]) - n) * least // n for name, n in self.lengths.items()
        )

    def _read(self, i: int) -> dict[str, Any]:
        record, (_, center, noisy, snr, seed) = dict(self.source[i]), self.made
        for name in self.lengths:
            x_nd = warped.series_of(record, name, self._place(record))
            if name == noisy:
                own = zlib.crc32(str(record["key"]).encode())
                normal_nd = np.random.default_rng([seed, own]).normal(size=x_nd.shape)
                x_nd = x_nd + x_nd.std(0) * 10 ** (-snr / 20) * normal_nd
            record[name] = np.asarray(x_nd - center * x_nd.mean(0), np.float32)
        return record

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, i: int) -> int:
        """Which record of the source a window is cut from."""
        return self.origins[self.groups[records.position(i, len(self))]]

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, len(self))
        record, start = dict(self.whole[self.groups[i]]), int(self.starts[i])
        least = min(self.lengths.values())
        for name, n in self.lengths.items():
            at = start * n // least
            record[name] = record[name][at : at + n]
        return {**record, "key": f"{record['key']}/{start}"}

    def fields(self, i: int) -> Mapping[str, Any]:
        return self[i]

    def texts(self) -> Iterator[str]:
        return records.texts(self.captions, len(self))

    def fingerprint(self) -> str:
        lengths = sorted(self.lengths.items())
        return records.digest("windows", self.source.fingerprint(), lengths, self.made)
