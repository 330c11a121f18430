"""Objects of buckets, through fsspec: asked again after faults, read by blocks.

Blocks of 1 MiB are kept on the local disk, where all processes of a host find them, and
read ahead of a reader that goes in order. Two numbers come from the environment:
MMJAX_CACHE_GB (default 10), the size of those blocks in all, and MMJAX_READ_TIMEOUT
(default 60), the seconds that one attempt at a block may take.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mmjax.cache import cache_dir
from mmjax.errors import UserError

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes that are fetched and kept as one
AHEAD = 4  # blocks fetched before a reader in order asks for them
TRIES, PAUSE = 5, 0.5  # attempts at a block; seconds before the second, then doubled
STALLED = 60.0  # seconds for which an object is left alone after its last attempt
_SWEEP = 64 << 20  # bytes that a process adds to the cache before it looks at its size
_SIGN_IN = {
    "gs": "run `gcloud auth application-default login`",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "hf": "set HF_TOKEN, and accept the set's terms on its page",
}
Out = TypeVar("Out")


class Missing(UserError):
    """No such object."""


def answer(path: str, ask: Callable[[Any], Out]) -> Out:
    """What an object's file system answers, asked again after a fault or silence."""
    fs, why = _system(path), ""
    for attempt in range(TRIES):
        time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
        task = _Task(lambda: ask(fs))
        task.join(_timeout())
        if task.done:
            if task.error is None:
                return task.value
            _refuse(path, task.error)
            why = f"{type(task.error).__name__}: {task.error}"
        else:
            why = f"no answer in {_timeout():g} seconds"
    raise UserError(f"{path}: {why}, {TRIES} times: try again, or copy it to this disk")


def _system(path: str) -> Any:
    """fsspec's file system of a path; UserError where its driver is missing."""
    fsspec = importlib.import_module("fsspec")
    try:
        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        raise UserError(
            f"{path}: {error}: pip install 'mmjax[buckets]' has the drivers"
        ) from None
    except Exception as error:  # a driver that signs in at once may raise anything
        _refuse(path, error)
        raise UserError(f"{path}: cannot be opened: {error}") from None


def _refuse(path: str, error: BaseException) -> None:
    """UserError for what no further attempt would mend."""
    names = {kind.__name__ for kind in type(error).__mro__}
    code = getattr(error, "status", getattr(error, "code", None))
    if isinstance(error, FileNotFoundError) or code == 404:
        raise Missing(f"shard {path} does not exist") from None
    private = code in (401, 403) or isinstance(error, PermissionError)
    if private or any("Credential" in name for name in names):
        kind = path.partition("://")[0].replace("gcs", "gs")
        fix = _SIGN_IN.get(kind, "give an address that needs no password")
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} may not be read ({first}): {fix}") from None


def _timeout() -> float:
    return _number("MMJAX_READ_TIMEOUT", 60.0)


def _number(name: str, otherwise: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or otherwise)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UserError(f"{name}={text!r}: give a number above 0")
    return value


class _Task(threading.Thread):
    """A call in a thread of its own, so that one that hangs can be left behind."""

    def __init__(self, call: Callable[[], Any]):
        super().__init__(daemon=True)
        self.call, self.done = call, False
        self.value: Any = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.call()
        except Exception as error:
            self.error = error
        self.done = True


_quiet: dict[str, float] = {}  # objects that stalled, and until when they are left


class Object:
    """An object by blocks, out of the cache on disk or from where it lies."""

    def __init__(self, path: str, size: int, stamp: str):
        self.path, self.size = path, size
        identity = f"{path} {size} {stamp}"
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        self.home = _blocks() / name[:32]
        self.tasks: dict[int, _Task] = {}
        self.lock, self.last = threading.Lock(), -2

    def read_at(self, offset: int, count: int) -> bytes:
        stop = min(offset + count, self.size)
        parts = []
        while offset < stop:
            number, start = divmod(offset, BLOCK)
            parts.append(self._part(number, start, min(BLOCK, start + stop - offset)))
            offset += len(parts[-1])
        return b"".join(parts)

    def _part(self, number: int, start: int, stop: int) -> bytes:
        """Bytes of one block, and the next blocks under way where reads are in order.

        One block more than the last read had: a reader that jumps reads no more.
        """
        if number == self.last + 1:
            with self.lock:
                for k in range(number + 1, number + 1 + AHEAD):
                    if k * BLOCK < self.size and k not in self.tasks:
                        if not (self.home / str(k)).exists():
                            self._begin(k)
        self.last = number
        with contextlib.suppress(OSError), (self.home / str(number)).open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
            if len(data) == stop - start:
                return data
        return self._fetched(number)[start:stop]

    def _begin(self, number: int) -> _Task:
        task = self.tasks[number] = _Task(lambda: self._fetch(number))
        return task

    def _fetch(self, number: int) -> bytes:
        start = number * BLOCK
        stop = min(start + BLOCK, self.size)
        data = _system(self.path).cat_file(self.path, start=start, end=stop)
        if len(data) != stop - start:
            raise OSError(f"{len(data)} bytes came of {stop - start}")
        _keep(self.home / str(number), data)
        with self.lock:
            self.tasks.pop(number, None)
        return data

    def _fetched(self, number: int) -> bytes:
        if time.monotonic() < _quiet.get(self.path, 0):
            raise OSError("it did not answer a moment ago, and is left alone for now")
        why = ""
        for attempt in range(TRIES):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            with self.lock:
                task = self.tasks.get(number) or self._begin(number)
            task.join(_timeout())
            with self.lock:
                if self.tasks.get(number) is task:
                    del self.tasks[number]
            if task.done and task.error is None:
                return task.value
            if task.done:
                _refuse(self.path, task.error)
                why = str(task.error) or type(task.error).__name__
            else:
                why = f"no answer in {_timeout():g} seconds"
        _quiet[self.path] = time.monotonic() + STALLED
        raise OSError(f"{why}, {TRIES} times")


@functools.lru_cache(maxsize=4096)
def open_object(path: str, size: int, stamp: str) -> Object:
    """One for all who read an object, which know of each other's blocks."""
    return Object(path, size, stamp)


def _blocks() -> pathlib.Path:
    return cache_dir() / "blocks"


_added = itertools.count(1)


def _keep(path: pathlib.Path, data: bytes) -> None:
    """Adds a block to the cache; without a word where the disk refuses, once."""
    part = path.with_name(f"{path.name}.part{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        log.warning("cannot keep what was read in %s: %s", path.parent, error)
        return
    if next(_added) % max(1, _SWEEP // BLOCK) == 0:
        sweep()


def sweep() -> None:
    """Deletes blocks, the oldest first, until MMJAX_CACHE_GB holds the others."""
    limit, held = int(_number("MMJAX_CACHE_GB", 10) * 1e9), []
    for path in _blocks().glob("*/*"):
        with contextlib.suppress(OSError):  # another process deletes as well
            status = path.stat()
            held.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in held)
    for _, size, path in sorted(held):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
