"""The index of a set of tar shards: a file that all readers of a host map into memory.

    mmjax-shards-3, and the length of what follows     16 and 8 bytes, little endian
    the facts of each shard, JSON                      to a multiple of 16 bytes
    tar_index.ROW                                      12 bytes a sample
    tar_index.ODD                                      80 bytes a scattered sample

Each shard has such a file of its own, so that shards are indexed independently; that of
a set is theirs joined. They lie beside the shards in `.mmjax/` where `mmjax data index`
could write them, otherwise in the user's cache folder.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import multiprocessing
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mmjax.cache import cache_dir
from mmjax.data import storage, tar_index, workers
from mmjax.data.storage import Blob
from mmjax.errors import UserError

log = logging.getLogger(__name__)

_MAGIC = b"mmjax-shards-3".ljust(16)


@dataclasses.dataclass(frozen=True)
class Shard:
    """What an index says of a shard: see `storage.Blob` and `tar_index.Index`."""

    name: str
    size: int
    stamp: str
    rows: int
    odd: int
    cut: int
    why: str
    left_out: Sequence[Sequence[str]]
    digest: str


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """shards: in their order. rows: ROW of all samples. odd: ODD of all shards."""

    shards: tuple[Shard, ...]
    rows: np.ndarray
    odd: np.ndarray
    path: pathlib.Path | None = None

    def __reduce__(self) -> tuple:  # a worker maps the same file
        if self.path is not None:
            return _mapped, (self.path,)
        return ShardIndex, (self.shards, self.rows, self.odd)


def load(blobs: Sequence[Blob], suffixes: Sequence[str]) -> ShardIndex:
    """The index of a set, found or made now.

    Raises:
      UserError: an object of a bucket changed under its index; or see `build`.
    """
    return _load(blobs, suffixes, beside=False)


def build(
    blobs: Sequence[Blob],
    suffixes: Sequence[str],
    *,
    jobs: int = 1,
    say: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Indexes shards, those that have no index yet, in `jobs` processes.

    The files go beside the shards, or into the cache folder where that is refused.

    Raises:
      UserError: a shard is compressed, or no tar at all.
    """
    make = functools.partial(_made, suffixes=suffixes, beside=True)
    say(0, len(blobs))
    if jobs == 1:
        for done, blob in enumerate(blobs, 1):
            make(blob)
            say(done, len(blobs))
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context)
    with workers.safe_path(), pool:
        for done, _ in enumerate(pool.map(make, blobs), 1):
            say(done, len(blobs))


def join(blobs: Sequence[Blob], suffixes: Sequence[str]) -> ShardIndex:
    """The index of a set whose shards have theirs, written where `build` writes."""
    return _load(blobs, suffixes, beside=True)


def _load(blobs: Sequence[Blob], suffixes: Sequence[str], beside: bool) -> ShardIndex:
    if len(blobs) == 1:
        return _made(blobs[0], suffixes, beside)
    names = [f"{os.path.relpath(b.folder, blobs[0].folder)}/{b.name}" for b in blobs]
    name = f"set-{_hash(*names)}.idx"
    if found := _found(blobs, name, suffixes, beside):
        return found
    # Processes that start together begin at unlike shards, and find what others made.
    made, first = {}, os.getpid() * 7919 % len(blobs)
    for k in (*range(first, len(blobs)), *range(first)):
        made[k] = _made(blobs[k], suffixes, beside)
    pieces = [made[k] for k in range(len(blobs))]  # a map each, and 65,530 are allowed
    shards = tuple(piece.shards[0] for piece in pieces)

    def arrays() -> Iterator[bytes]:
        for part in ("rows", "odd"):
            yield from (getattr(piece, part).tobytes() for piece in pieces)

    return _save(blobs, name, shards, suffixes, arrays, beside) or ShardIndex(
        shards,
        np.concatenate([piece.rows for piece in pieces]),
        np.concatenate([piece.odd for piece in pieces]),
    )


def _made(blob: Blob, suffixes: Sequence[str], beside: bool) -> ShardIndex:
    """The index of one shard, written now if there is none."""
    name = f"{blob.name}.idx"
    if found := _found([blob], name, suffixes, beside):
        return found
    with blob.open() as file:
        built = tar_index.build(file, blob.path, suffixes)
    rows, odd, facts = built.rows, built.odd, vars(built)
    facts = {**facts, "rows": len(rows), "odd": len(odd)}
    shards = (Shard(blob.name, blob.size, blob.stamp, **facts),)

    def arrays() -> Iterator[bytes]:
        yield from (rows.tobytes(), odd.tobytes())

    made = _save([blob], name, shards, suffixes, arrays, beside)
    return made or ShardIndex(shards, rows, odd)


def _hash(*parts: str) -> str:
    text = "\n".join(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:24]


def _homes(folder: str) -> tuple[str, pathlib.Path]:
    """Where an index may lie: beside the shards, and in the cache folder."""
    return f"{folder}/.mmjax", cache_dir() / "tar_index" / _hash(folder)


def _found(
    blobs: Sequence[Blob], name: str, suffixes: Sequence[str], beside: bool
) -> ShardIndex | None:
    """An index of just these shards; None where there is none.

    One of a bucket's shards that have changed is refused, but by those who remake it.
    """
    near, kept = _homes(blobs[0].folder)
    remote = storage.is_remote(near)
    if remote and not (kept / name).exists():
        if data := storage.read(f"{near}/{name}"):
            _write(kept / name, [data])
    for path in (kept / name,) if remote else (pathlib.Path(near) / name, kept / name):
        try:
            index = _mapped(path, suffixes)
        except FileNotFoundError:
            continue
        except Exception as error:  # a damaged file raises many kinds
            log.warning("remaking the index of %s: %s", blobs[0].path, error)
            continue
        for shard, blob in zip(index.shards, blobs, strict=False):
            old = shard.name, shard.size, shard.stamp
            if old != (blob.name, blob.size, blob.stamp):
                if remote and not beside:
                    blob.refuse(*old[1:], f"`mmjax data index {blob.folder}/...`")
                break
        else:
            if len(index.shards) == len(blobs):
                return index
    return None


def _mapped(path: pathlib.Path, suffixes: Sequence[str] | None = None) -> ShardIndex:
    """Opens a file; ValueError and others where it is damaged."""
    with path.open("rb") as file:
        magic, length = struct.unpack("<16sQ", file.read(24))
        if magic != _MAGIC or length > path.stat().st_size:
            raise ValueError(f"{path} is no index of this version")
        facts = json.loads(file.read(length))
    if suffixes is not None and facts["suffixes"] != list(suffixes):
        raise ValueError(f"{path} is of other suffixes")
    shards = tuple(Shard(**values) for values in facts["shards"])
    at, arrays = 24 + length, []
    for dtype, name in ((tar_index.ROW, "rows"), (tar_index.ODD, "odd")):
        count = sum(getattr(shard, name) for shard in shards)
        empty = np.zeros(0, dtype)
        arrays.append(np.memmap(path, dtype, "r", at, (count,)) if count else empty)
        at += count * dtype.itemsize
    spans_ms2, sizes = arrays[1]["spans"], [shard.size for shard in shards]
    ends_ms = spans_ms2.sum(-1)
    if at != path.stat().st_size or (len(ends_ms) and ends_ms.max() > max(sizes)):
        raise ValueError(f"{path} is cut, or of another set")
    return ShardIndex(shards, *arrays, path)


def _save(
    blobs: Sequence[Blob],
    name: str,
    shards: Sequence[Shard],
    suffixes: Sequence[str],
    arrays: Callable[[], Iterator[bytes]],
    beside: bool,
) -> ShardIndex | None:
    """Writes an index and maps it; None where no folder may be written."""
    facts = {
        "suffixes": list(suffixes),
        "shards": list(map(dataclasses.asdict, shards)),
    }
    text = json.dumps(facts).encode()
    text += b" " * (-(24 + len(text)) % 16)
    head = struct.pack("<16sQ", _MAGIC, len(text)) + text
    near, kept = _homes(blobs[0].folder)
    try:
        if beside and not storage.is_remote(near):
            with contextlib.suppress(OSError):
                return _write(pathlib.Path(near) / name, [head, *arrays()])
        index = _write(kept / name, [head, *arrays()])
    except OSError as error:
        log.warning("cannot keep the index of %s: %s", blobs[0].path, error)
        return None
    if beside and storage.is_remote(near):
        try:
            storage.write(f"{near}/{name}", (kept / name).read_bytes())
        except UserError as error:
            log.warning("the index stays in %s: %s", kept, error)
    return index


def _write(path: pathlib.Path, parts: Iterable[bytes]) -> ShardIndex:
    """A file that is there whole or not at all, mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return _mapped(path)
