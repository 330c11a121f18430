"""What fingerprints know of files: sizes, and the ends of some of them.

Neither names of folders nor times go in, so that a copy has the fingerprint of what it
is a copy of.
"""

import os
import pathlib
import zlib
from collections.abc import Sequence

from mmjax import errors
from mmjax.errors import UserError

SAMPLE = 4096  # bytes at each end of a file that are looked at
FILES = 1024  # files of a source that are looked at, evenly spaced
COVERS = (
    f"names and sizes, and {SAMPLE} bytes at each end of {FILES} files, evenly spaced"
)


def read(path: pathlib.Path) -> bytes:
    """A plain file's bytes; UserError where it cannot be read."""
    if reason := errors.plain(path):
        raise UserError(f"cannot read {path}: {reason}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def size(path: pathlib.Path) -> int:
    """The bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def sums(paths: Sequence[pathlib.Path]) -> list[tuple[int, int]]:
    """(size, sum of both ends) of up to FILES of the files, evenly spaced.

    (-1, 0) of one that cannot be read.
    """
    count = min(len(paths), FILES)
    return [_sum(paths[i * len(paths) // count]) for i in range(count)]


def _sum(path: pathlib.Path) -> tuple[int, int]:
    if errors.plain(path):
        return -1, 0
    try:
        with path.open("rb") as file:
            total, size = zlib.crc32(file.read(SAMPLE)), file.seek(0, os.SEEK_END)
            file.seek(max(SAMPLE, size - SAMPLE))
            return size, zlib.crc32(file.read(SAMPLE), total)
    except OSError:
        return -1, 0
