"""Drawn records of two views of one cause: `waves:train?count=64`.

A record has `view_a` float32 (6,), `view_b` float32 (5,), which every fourth lacks, and
`wave` float32 (T, 2) of 3 to 12 samples. Everything follows from the record's number.
"""

import numpy as np

from mmjax.data import records

_MIX = np.random.default_rng(0).normal(size=(2, 6 + 5)).astype(np.float32)


def open(path: str, *, count: int = 64, whole: bool = False):
    """The records; `whole`: none lacks its `view_b`."""
    return Waves(path, count, whole)


class Waves:
    """See the module."""

    class_names = ()

    def __init__(self, path, count, whole):
        self.path, self.count, self.whole = path, count, whole
        self.name = f"waves:{path}"

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        i = records.position(i, self.count)
        rng = np.random.default_rng([i, len(self.path)])
        cause = rng.normal(size=2).astype(np.float32)
        views = cause @ _MIX + 0.1 * rng.normal(size=11).astype(np.float32)
        time = np.arange(rng.integers(3, 13), dtype=np.float32)[:, None]
        wave = np.sin(time * np.exp(cause / 4)).astype(np.float32)
        record = {"key": str(i), "text": [], "view_a": views[:6], "wave": wave}
        return (
            record if i % 4 == 3 and not self.whole else record | {"view_b": views[6:]}
        )

    def texts(self):
        return iter(())

    def fingerprint(self):
        return records.digest(self.name, self.count, self.whole)
