"""Another source's images under a shift, for robustness under any evaluator.

`shifted:npz:/d/cifar.npz?shift=noise&severity=3`, or, where the inner source has
options of its own, {"kind": "shifted", "source": SPEC, "shift": "blur", "severity": 2}.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from mmjax.data import corruptions, image, records
from mmjax.data.records import Record, Source
from mmjax.data.sources import views
from mmjax.errors import UserError


def open(
    path: str = "",
    source: str | Mapping[str, Any] = "",
    shift: str = "",
    severity: int = 3,
    seed: int = 0,
) -> Shifted:
    """Opens the source that `path` or `source` names; see mmjax.data.corruptions."""
    from mmjax.data.sources import open_source  # it imports this module

    if bool(path) == bool(source):
        raise UserError("a shifted source needs either a path or a source to change")
    return Shifted(open_source(path or source), shift, severity, seed)


class Shifted(views.View):
    """Every image changed, the same way each time it is read."""

    def __init__(self, source: Source, shift: str, severity: int, seed: int = 0):
        super().__init__(source)
        corruptions.check(shift, severity)
        if records.stage1(source):
            raise UserError(f"{source.name} holds tokens: a shift changes images")
        self.shift, self.severity, self.seed = shift, severity, seed
        self.name = f"{source.name}, {shift} {severity}"

    def __getitem__(self, i: int) -> Record:
        record = dict(self.source[i])
        # by its key, so that a part of the set sees what the whole does
        own = zlib.crc32(f"{self.shift} {record['key']}".encode())
        record["image"] = corruptions.apply(
            self.shift, record["image"], self.severity, self.seed + own
        )
        return record

    def encoded(self, i: int) -> bytes:
        return image.encode_png(self[i]["image"])

    def fingerprint(self) -> str:
        made = ("shifted", self.shift, self.severity, self.seed)
        return records.digest(self.source.fingerprint(), *made)
