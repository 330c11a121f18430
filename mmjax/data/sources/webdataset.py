"""Tar shards of `key.jpg` + `key.json` (or `.txt`, `.cls`): `webdataset:/d/x-*.tar`.

Members are found once, by reading headers only, and their offsets kept in the user's
cache folder, so that any record can be read at once. Patterns: `*`, `?`, `[0-9]`,
`{00000..00012}`, `{train,dev}`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import logging
import os
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.cache import cache_dir
from mmjax.data import records
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError

log = logging.getLogger(__name__)

VERSION = 1  # of the index files: raise it with their layout
PARTS = ("image", "json", "txt", "cls")
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def open(path: str, text: str = "", values: str = "") -> Shards:
    """The shards that match `path`, in sorted order.

    text: caption fields of the json, comma separated (`caption,keywords,labels.de`);
    empty: `captions`, `caption` or `text`, whichever there is. values: other fields
    that records have, `name:field`, comma separated, such as `boxes:objects.bbox`.
    """
    return Shards(expand(path), path, text, values)


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the samples of one shard lie.

    keys: (n,) str. spans: int64 (n, 4, 2), (offset, size) of each of PARTS, offset -1
    where a sample has no such member. cut: the byte at which the file breaks off, -1
    when whole. why: what the tar reader said there.
    """

    keys: np.ndarray
    spans: np.ndarray
    cut: int
    why: str


class Shards(encoded.Encoded):
    """Samples of tar shards. A shard that breaks off ends in one broken record."""

    def __init__(
        self, paths: Sequence[pathlib.Path], pattern: str, text: str, values: str = ""
    ):
        self.values = encoded.pairs_of(values)
        self.paths = tuple(paths)
        self.name = f"webdataset:{pattern}"
        self.indices = [load_index(path) for path in self.paths]
        counts = [len(index.keys) + (index.cut >= 0) for index in self.indices]
        self.ends = np.cumsum(counts)
        self.length = int(self.ends[-1])
        if not self.length:
            raise UserError(f"{pattern} holds no samples: expected key.jpg, key.json")
        self.caption_fields = text or encoded.AUTO
        if not any((index.spans[:, 1:3, 0] >= 0).any() for index in self.indices):
            self.caption_fields = ""
        if any((index.spans[:, 3, 0] >= 0).any() for index in self.indices):
            self._read_labels()
        self.check_fields()

    def _read_labels(self) -> None:
        """Labels and class names out of the `.cls` members."""
        where = [self._find(i) for i in range(self.length)]
        read = [
            self._part(shard, at, 3) if at < len(self.indices[shard].keys) else b"0"
            for shard, at in where
        ]
        words = [(value or b"0").decode("utf-8", "replace").strip() for value in read]
        self.labels, self.class_names = encoded.label_index(words, self.name)

    def place(self, i: int) -> str:
        shard, at = self._find(i)
        index, path = self.indices[shard], self.paths[shard]
        if at == len(index.keys):
            return f"{path} at byte {index.cut}"
        return f"{path}, sample {index.keys[at]}"

    def encoded(self, i: int) -> bytes:
        shard, at = self._find(i)
        data = self._part(shard, at, 0)
        if data is None:
            raise BrokenRecord(self.place(i), "the sample has no image member")
        return data

    def fields(self, i: int) -> Mapping[str, Any]:
        shard, at = self._find(i)
        index = self.indices[shard]
        if at == len(index.keys):
            reason = f"the tar breaks off here ({index.why}); {at} samples before it"
            raise BrokenRecord(self.place(i), f"{reason} are whole and used")
        out: dict[str, Any] = {}
        if (data := self._part(shard, at, 1)) is not None:
            try:
                out = json.loads(data)
            except ValueError as error:  # bad JSON, or bytes that are not UTF-8
                raise BrokenRecord(self.place(i), f"bad json: {error}") from None
            if not isinstance(out, dict):
                raise BrokenRecord(self.place(i), "the json is no mapping")
        if (data := self._part(shard, at, 2)) is not None:
            out["text"] = encoded.clean(data, self.place(i))
        if self.class_names:
            out["label"] = self.labels[i]
        return {**out, "key": str(index.keys[at])}

    def fingerprint(self) -> str:
        shards = [
            (path.name, index.keys.tolist(), index.spans[..., 1].tolist(), index.cut)
            for path, index in zip(self.paths, self.indices, strict=True)
        ]
        more = [self.values] if self.values else []
        return records.digest("webdataset", shards, self.caption_fields, *more)

    def _find(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.ends, i, side="right"))
        return shard, i - (int(self.ends[shard - 1]) if shard else 0)

    def _part(self, shard: int, at: int, part: int) -> bytes | None:
        offset, size = self.indices[shard].spans[at, part].tolist()
        if offset < 0:
            return None
        # Opened anew for each read: 10 us, and nothing to share between threads, to
        # carry into worker processes or to run out of.
        place = f"{self.paths[shard]} at byte {offset}"
        try:
            with self.paths[shard].open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise BrokenRecord(place, f"cannot read: {error.strerror}") from None
        if len(data) != size:
            raise BrokenRecord(place, f"read {len(data)} bytes of {size}")
        return data


def expand(pattern: str) -> list[pathlib.Path]:
    """The files that match a brace and glob pattern, sorted; UserError for none."""
    found: list[str] = []
    for name in braces(os.path.expanduser(pattern)):
        if os.path.isfile(name):
            found.append(name)
        elif glob.has_magic(name):
            found += sorted(glob.glob(name))
        else:
            raise UserError(f"shard {name} does not exist")
    if not found:
        raise UserError(f"no file matches {pattern}")
    return [pathlib.Path(path).absolute() for path in dict.fromkeys(found)]


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


def load_index(path: pathlib.Path) -> Index:
    """The shard's index, from the cache or made now; the cache is only a cache."""
    status = path.stat()
    identity = f"{VERSION} {path} {status.st_size} {status.st_mtime_ns}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    cached = cache_dir() / "tar_index" / f"{name[:32]}.npz"
    try:
        with np.load(cached) as z:
            return Index(z["keys"], z["spans"], int(z["cut"]), str(z["why"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("remaking the index of %s: %s", path, error)
    index = build_index(path)
    part = cached.with_name(f"{cached.name}.part{os.getpid()}")  # no *.npz as yet
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **dataclasses.asdict(index))
        part.replace(cached)
    except OSError as error:
        log.warning("cannot keep the index of %s: %s", path, error)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return index


def build_index(path: pathlib.Path) -> Index:
    """Reads every header of a tar. Samples cut short are left out; `cut` says where."""
    size = path.stat().st_size
    samples: dict[str, np.ndarray] = {}
    cut, why = -1, ""
    with _open_tar(path) as tar:
        while True:
            try:
                member = tar.next()
            except tarfile.TarError as error:
                cut, why = min(tar.offset, size), str(error)
                break
            if member is None:  # an end mark, or a header that makes no sense
                if not _ends_at(path, tar.offset):
                    cut, why = min(tar.offset, size), "no header and no end mark"
                break
            if member.offset_data + member.size > size:
                cut, why = size, f"member {member.name} is incomplete"
                break
            if member.isfile() and (part := _part_of(member.name)):
                key, number = part
                spans = samples.setdefault(key, np.full((len(PARTS), 2), -1, np.int64))
                spans[number] = member.offset_data, member.size
    if cut >= 0 and samples:  # the sample that the cut runs through
        last = list(samples)[-1]
        whole = samples[next(iter(samples))][:, 0] >= 0
        if (samples[last][whole, 0] < 0).any():
            del samples[last]
    keys = np.array(list(samples), dtype=np.str_)
    spans = np.array(list(samples.values()), np.int64).reshape(-1, len(PARTS), 2)
    return Index(keys, spans, cut, why)


def _open_tar(path: pathlib.Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is no plain tar ({error}): shards are read by offset, so unpack "
            "a compressed one first (gunzip)"
        ) from None


def _ends_at(path: pathlib.Path, offset: int) -> bool:
    """Whether a block of zeros, the end mark of a whole tar, lies at the offset."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _part_of(name: str) -> tuple[str, int] | None:
    """(key, which of PARTS); the key ends at the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    suffix = suffix.lower()
    if not dot or not stem:
        return None
    if suffix in encoded.SUFFIXES:
        return folder + slash + stem, 0
    return (folder + slash + stem, PARTS.index(suffix)) if suffix in PARTS[1:] else None
