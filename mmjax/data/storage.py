"""One door to bytes: `/d/x.tar`, `gs://b/x.tar`, `s3://...`, `https://...`, `hf://...`.

    for blob in storage.find("gs://bucket/x-{000..331}.tar"):
        with blob.open() as file:
            head = file.read_at(0, 512)

What has `://` is an object of a bucket: see `mmjax.data.remote`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NoReturn, Protocol

from mmjax import errors
from mmjax.data import remote
from mmjax.errors import UserError

_AT_ONCE = 16  # questions about objects
_STAMPS = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "LastModified", "updated")
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


class File(Protocol):
    """Something open for reading, at any place and by several threads."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes, fewer at the end; OSError where they cannot be read."""
        ...


@dataclasses.dataclass(frozen=True)
class Blob:
    """A file or an object. stamp: changes whenever its bytes do."""

    path: str
    size: int
    stamp: str

    @property
    def folder(self) -> str:
        """Its folder's path or address."""
        return os.path.dirname(self.path)

    @property
    def name(self) -> str:
        """Its name in that folder."""
        return os.path.basename(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[File]:
        """The bytes; of an object none are fetched yet."""
        if is_remote(self.path):
            yield remote.open_object(self.path, self.size, self.stamp)
            return
        file = _Local(self.path)
        try:
            yield file
        finally:
            os.close(file.fd)

    def check(self) -> None:
        """UserError where the file is no longer what it was when it was found."""
        now = stat(self.path)
        if now != self:
            now.refuse(self.size, self.stamp, "the same command")

    def refuse(self, size: int, stamp: str, fix: str) -> NoReturn:
        """UserError: it had another size or stamp when it was indexed."""
        raise UserError(
            f"{self.path} changed under its index: it had {size} bytes and stamp "
            f"{stamp!r}, now {self.size} and {self.stamp!r}: put the old one back, or "
            f"run {fix} again"
        )


def is_remote(path: str) -> bool:
    """Whether a path is the address of an object, `scheme://...`."""
    return "://" in path


def find(pattern: str) -> list[Blob]:
    """What matches a brace and glob pattern, sorted; UserError for none."""
    names: list[str] = []
    for name in braces(os.path.expanduser(pattern)):
        if is_remote(name):
            names += _listed(name) if glob.has_magic(name) else [name]
        elif not os.path.exists(name) and glob.has_magic(name):
            names += sorted(glob.glob(name))
        else:
            names.append(name)
    if not names:
        raise UserError(f"no file matches {pattern}")
    names = list(dict.fromkeys(names))
    if not any(map(is_remote, names)):
        return list(map(stat, names))
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(stat, names))


def stat(path: str) -> Blob:
    """The file or object at a path; UserError where there is none to read."""
    if is_remote(path):
        info = remote.answer(path, lambda fs: fs.info(path))
        stamp = next((str(info[k]) for k in _STAMPS if info.get(k)), "")
        return Blob(path, int(info.get("size") or 0), stamp.strip('"'))
    if not os.path.exists(path):
        raise UserError(f"shard {path} does not exist")
    if reason := errors.plain(path):
        raise UserError(f"cannot read shard {path}: {reason}")
    status = os.stat(path)
    stamp = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return Blob(str(pathlib.Path(path).absolute()), status.st_size, stamp)


def braces(pattern: str) -> list[str]:
    """`a{0..2}{x,y}` as the six names it stands for; widths follow the first number."""
    pieces = _BRACE.split(pattern)
    choices = [[p] if k % 2 == 0 else _choices(p) for k, p in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    if match := _RANGE.fullmatch(inside):
        first, last = match.groups()
        step = 1 if int(last) >= int(first) else -1
        numbers = range(int(first), int(last) + step, step)
        return [f"{n:0{len(first)}d}" for n in numbers]
    return inside.split(",")


def read(path: str) -> bytes | None:
    """A small object whole; None where there is none."""
    try:
        return remote.answer(path, lambda fs: fs.cat_file(path))
    except remote.Missing:
        return None


def write(path: str, data: bytes) -> None:
    """An object, there whole or not at all; OSError or UserError where refused."""
    remote.answer(path, lambda fs: fs.pipe_file(path, data))


def _listed(pattern: str) -> list[str]:
    return remote.answer(
        pattern, lambda fs: [fs.unstrip_protocol(p) for p in sorted(fs.glob(pattern))]
    )


class _Local:
    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        data = os.pread(self.fd, count, offset)
        while 0 < len(data) < count and offset + len(data) < self.size:
            data += os.pread(self.fd, count - len(data), offset + len(data))
        return data
