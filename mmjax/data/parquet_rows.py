"""Rows of a Parquet file as samples of a stream: an encoded image and its fields.

The image is the column of that name, or of an image's suffix: bytes, or a mapping with
`bytes`, as Hugging Face writes them. Every other column is a field of the sample.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence

from mmjax.data import storage
from mmjax.errors import UserError


class _Reader(io.RawIOBase):
    """A `storage.File` as pyarrow reads files."""

    def __init__(self, file: storage.File):
        self.file, self.at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.file.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: memoryview) -> int:
        data = self.file.read_at(self.at, len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def rows(
    file: storage.File, name: str, start: int, suffixes: Sequence[str], *, images: bool
) -> Iterator[tuple[str, dict[int, bytes]]]:
    """(key, parts as of a tar's sample) of each row from `start` on.

    Raises:
      UserError: it is no Parquet, or has no column of images.
      OSError: the file cannot be read.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(_Reader(file), pre_buffer=False)
    except ArrowException as error:
        raise UserError(f"{name} is no Parquet file: {error}") from None
    columns = table.schema_arrow.names
    image = next((c for c in ("image", *suffixes) if c in columns), None)
    if image is None:
        raise UserError(
            f"{name} has no column of images: rename one of {', '.join(columns)} to "
            "image"
        )
    wanted = [c for c in columns if images or c != image]
    first = 0
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if first + count > start:
            try:
                batch = table.read_row_group(group, columns=wanted)
            except ArrowException as error:
                raise OSError(f"row group {group}: {error}") from None
            for k in range(max(0, start - first), count):
                row = {c: batch[c][k].as_py() for c in wanted}
                data = row.pop(image, None)
                data = data.get("bytes") if isinstance(data, dict) else data
                parts = {0: data} if data else {}
                parts[1] = json.dumps(row, default=repr).encode()
                yield str(row.get("key", first + k)), parts
        first += count
