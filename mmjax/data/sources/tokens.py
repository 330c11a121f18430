"""Image tokens that `mmjax data encode` wrote: `tokens:/data/shapes_tokens`.

Records hold `image_tokens` int32 (grid * grid,) in place of an image, with the
captions, key and label of the source they were made of.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource

from mmjax import errors
from mmjax.data import content, records, token_cache
from mmjax.data.records import BrokenRecord, Record
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, kind: str = "tokens") -> "Cache":
    """The cache in the folder `path`; UserError where it is none, or not whole."""
    return Cache(encoded.existing(path, f"folder of encoded images ({kind})"), kind)


class Cache:
    """Records of a cache of `kind`. `stage1`: fingerprint and sizes of their maker."""

    covers = content.COVERS

    def __init__(self, folder: pathlib.Path, kind: str):
        header = token_cache.read_header(folder)
        if header is None:
            raise UserError(
                f"{folder} holds no {kind} (no {token_cache.HEADER}): write them with "
                "`mmjax data encode`"
            )
        if not header.complete:
            raise UserError(
                f"{folder} is not whole, its writing was cut short: run the same "
                "`mmjax data encode` again"
            )
        holds = "latents" if header.stage1.channels else "tokens"
        if holds != kind:
            raise UserError(f"{folder} holds {holds}: read it as {holds}:{folder}")
        self.folder, self.header = folder, header
        self.name = f"{kind}:{folder}"
        self.class_names = header.class_names
        sizes = vars(header.stage1).items()
        self.stage1: dict[str, Any] = {k: v for k, v in sizes if v}
        for file in header.each_file(folder):
            if not file.exists():
                raise UserError(f"{file} is missing: run `mmjax data encode` again")
            if reason := errors.plain(file):
                raise UserError(f"cannot read {file}: {reason}")

    @functools.cached_property
    def _data(self) -> ArrayRecordDataSource:
        data = ArrayRecordDataSource(self.header.files(self.folder))
        if len(data) != len(self):
            raise UserError(
                f"{self.folder} holds {len(data)} records, its header says "
                f"{len(self)}: delete it and run `mmjax data encode` again"
            )
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_data"}

    def __len__(self) -> int:
        return self.header.records

    def __getitem__(self, i: int) -> Record:
        data, place = self._read(i)
        return token_cache.unpack(data, self.header, place)

    def captions(self, i: int) -> list[str]:
        return token_cache.unpack_head(*self._read(i)).get("text", [])

    def texts(self) -> Iterator[str]:
        return records.texts(self.captions, len(self))

    def fingerprint(self) -> str:
        inside = content.sums(self.header.files(self.folder))
        return records.digest("tokens", self.header.identity(), inside)

    def _read(self, i: int) -> tuple[bytes, str]:
        i = records.position(i, len(self))
        place = f"{self.folder}, record {i}"
        try:
            return self._data[i], place
        except (RuntimeError, ValueError, IndexError) as error:
            raise BrokenRecord(place, f"cannot be read: {error}") from None
