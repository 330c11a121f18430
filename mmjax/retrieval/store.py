"""An index on disk: unit embeddings in npy shards, what each row is of, and of whom.

A folder of `rows-00000.npy`, `items-00000.jsonl`, ... and `index.json`, which is
written last: a folder without it is an unfinished index. npy and not ArrayRecord,
because a shard is then a matrix that can be mapped into memory, by numpy or by FAISS,
and copied to a device in one piece.

Legend: n rows, d embedding width.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from mmjax.errors import UserError

VERSION = 1
DONE, UNFINISHED = "index.json", "building.json"
SHARD_ROWS = 1 << 16
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# npy has no name for bfloat16: its bits are kept, and `dtype` of the facts says so.
_STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an index is of; two builds with equal facts make the same files.

    model: `fingerprint` of the weights, `task`, `step`, `workdir` (a hint where it is).
    source: `spec`, `name`, `fingerprint`, `records`. preprocessing: the image config.
    d: width. dtype: of DTYPES. normalised: rows have length one. shard_rows: rows of
    every shard but the last.
    """

    model: Mapping[str, Any]
    source: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    d: int
    dtype: str = "float32"
    normalised: bool = True
    shard_rows: int = SHARD_ROWS

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise UserError(
                f"index dtype {self.dtype!r}: use {', '.join(DTYPES)} (float16 is the "
                "closer of the two small ones, for numbers between -1 and 1)"
            )
        if self.shard_rows < 1:
            raise UserError(f"shard rows {self.shard_rows}: use 1 or more")


_FIELDS = tuple(field.name for field in dataclasses.fields(Facts))


class Writer:
    """Rows into a new index, or on into an unfinished one of the same facts.

    Every finished shard is kept when the program is stopped: `next_record` is where
    the next build goes on. Files appear whole or not at all.

    Raises:
      UserError: the folder holds a finished index, an unfinished one of other facts, a
        damaged one, or other files.
    """

    def __init__(self, folder: pathlib.Path, facts: Facts):
        self.folder, self.facts = folder, facts
        self._rows: list[np.ndarray] = []
        self._items: list[Mapping[str, Any]] = []
        self._shards: list[dict[str, Any]] = []
        self.next_record = 0
        if (folder / DONE).exists():
            raise UserError(f"{folder} is a finished index: search it, or name another")
        if (folder / UNFINISHED).exists():
            self._resume()
        elif folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds other files: give a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)

    def _resume(self) -> None:
        found = _read_json(self.folder / UNFINISHED)
        mine = _plain(self.facts)
        for name, value in mine.items():
            if name == "model":  # the same weights may have moved
                same = found[name]["fingerprint"] == value["fingerprint"]
            else:
                same = found[name] == value
            if not same:
                raise UserError(
                    f"{self.folder} is an unfinished index with {name} {found[name]}, "
                    f"and this build has {value}: delete it, or give another folder"
                )
        self._shards = found["shards"]
        _check_shards(self.folder, found)
        if self._shards:
            self.next_record = self._shards[-1]["last_record"] + 1

    def add(self, rows_nd: np.ndarray, items: Sequence[Mapping[str, Any]]) -> None:
        """Rows in the order of records; `record` (its position) is in every item.

        Raises:
          UserError: a row is not finite, or of another width than the facts say.
        """
        rows_nd = np.asarray(rows_nd, np.float32)
        if rows_nd.shape != (len(items), self.facts.d):
            raise UserError(
                f"rows of shape {rows_nd.shape} for {len(items)} items in an index of "
                f"width {self.facts.d}: embed them with the index's own model"
            )
        if not np.isfinite(rows_nd).all():
            raise UserError(
                "an embedding holds NaN or Inf; the weights are broken: go back to an "
                "earlier checkpoint"
            )
        if self.facts.normalised:
            rows_nd = (
                rows_nd / np.maximum(np.linalg.norm(rows_nd, axis=1), 1e-12)[:, None]
            )
        self._rows.append(rows_nd.astype(DTYPES[self.facts.dtype]))
        self._items += items
        while len(self._items) >= self.facts.shard_rows:
            self._flush(self.facts.shard_rows)

    def _flush(self, count: int) -> None:
        rows_nd = np.concatenate(self._rows)
        take_nd, items = rows_nd[:count], self._items[:count]
        self._rows, self._items = [rows_nd[count:]], self._items[count:]
        names = _names(len(self._shards))
        stored = take_nd.view(_STORED[self.facts.dtype])
        lines = "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in items)
        sums = [
            _write(self.folder / names[0], lambda file: np.save(file, stored)),
            _write(self.folder / names[1], lambda file: file.write(lines.encode())),
        ]
        self._shards.append(
            {
                "rows": count,
                "last_record": int(items[-1]["record"]),
                "bytes": [(self.folder / name).stat().st_size for name in names],
                "sha256": sums,
            }
        )
        self._note()

    def _note(self) -> None:
        text = json.dumps(
            {
                "version": VERSION,
                **_plain(self.facts),
                "count": sum(shard["rows"] for shard in self._shards),
                "shards": self._shards,
            },
            indent=1,
        )
        _write(self.folder / UNFINISHED, lambda file: file.write(text.encode()))

    def close(self) -> None:
        """Writes what is left and makes the index a finished one.

        Raises:
          UserError: no row was added.
        """
        if self._items:
            self._flush(len(self._items))
        if not self._shards:
            raise UserError(f"{self.folder}: no rows to index")
        os.replace(self.folder / UNFINISHED, self.folder / DONE)


@dataclasses.dataclass(frozen=True)
class Store:
    """A finished index, its shards mapped into memory and not read."""

    folder: pathlib.Path
    facts: Facts
    count: int
    shards: tuple[np.ndarray, ...]  # (n, d) each, of the facts' dtype
    id: str  # digest of index.json

    def items(self) -> list[dict[str, Any]]:
        """What each row is of: `record`, `key`, `text` (captions)."""
        found: list[dict[str, Any]] = []
        for number in range(len(self.shards)):
            text = (self.folder / _names(number)[1]).read_text("utf-8")
            found += map(json.loads, text.splitlines())
        return found

    def rows(self, positions: Sequence[int]) -> np.ndarray:
        """float32 (len(positions), d), read from the shards."""
        size = self.facts.shard_rows
        picked = [self.shards[int(p) // size][int(p) % size] for p in positions]
        return np.stack(picked).astype(np.float32)

    def check_model(self, fingerprint: str, workdir: object) -> None:
        """UserError unless the model with this fingerprint made the index."""
        made = self.facts.model
        if fingerprint != made["fingerprint"]:
            raise UserError(
                f"{self.folder} was made by weights {made['fingerprint']} (step "
                f"{made['step']} of {made['workdir']}), and {workdir} holds "
                f"{fingerprint}: search it with the model that made it, or build an "
                "index with this one"
            )

    def verify(self) -> None:
        """Reads every file; UserError at one whose SHA-256 is not what was written."""
        shards = _read_json(self.folder / DONE)["shards"]
        for number, shard in enumerate(shards):
            for name, wanted in zip(_names(number), shard["sha256"], strict=True):
                with (self.folder / name).open("rb") as file:
                    got = hashlib.file_digest(file, "sha256").hexdigest()
                if got != wanted:
                    raise UserError(
                        f"{self.folder / name} has SHA-256 {got}, and {wanted} was "
                        "written: copy it again, or build the index again"
                    )


def open_store(folder: str | pathlib.Path) -> Store:
    """Opens a finished index.

    Raises:
      UserError: it is none, an unfinished one, of another version, or a file of it is
        missing or of another size than was written.
    """
    folder = pathlib.Path(folder)
    if not (folder / DONE).exists():
        if (folder / UNFINISHED).exists():
            raise UserError(
                f"{folder} is an unfinished index: run the same `mmjax index build` "
                "again to finish it"
            )
        raise UserError(f"{folder} is no index: it has no {DONE}")
    found = _read_json(folder / DONE)
    _check_shards(folder, found)
    facts = Facts(**{name: found[name] for name in _FIELDS})
    shards = tuple(
        np.load(folder / _names(i)[0], mmap_mode="r", allow_pickle=False).view(
            DTYPES[facts.dtype]
        )
        for i in range(len(found["shards"]))
    )
    for number, (shard, noted) in enumerate(zip(shards, found["shards"], strict=True)):
        if shard.shape != (noted["rows"], facts.d):
            raise UserError(
                f"{folder / _names(number)[0]} is {shard.shape}, and {DONE} says "
                f"{(noted['rows'], facts.d)}: build the index again"
            )
    digest = hashlib.sha256((folder / DONE).read_bytes()).hexdigest()[:16]
    return Store(folder, facts, found["count"], shards, digest)


def _names(number: int) -> tuple[str, str]:
    return f"rows-{number:05d}.npy", f"items-{number:05d}.jsonl"


def _plain(facts: Facts) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(facts)))


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict) or "version" not in found:
        raise UserError(f"{path} is no index's: it has no version")
    missing = [n for n in (*_FIELDS, "shards", "count") if n not in found]
    if missing or found["version"] != VERSION:
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise UserError(
            f"{path} is of version {found['version']}{lacks}; this program reads "
            f"version {VERSION}: build the index again"
        )
    return found


def _check_shards(folder: pathlib.Path, found: Mapping[str, Any]) -> None:
    for number, shard in enumerate(found["shards"]):
        for name, wanted in zip(_names(number), shard["bytes"], strict=True):
            path = folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != wanted:
                state = "is missing" if size is None else f"has {size} bytes"
                raise UserError(
                    f"{path} {state}, and {wanted} bytes were written: copy it again, "
                    "or delete the folder and build the index again"
                )


class _Summed:
    """A file open for writing, and the digest of what went into it."""

    def __init__(self, file: Any):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _write(path: pathlib.Path, fill: Callable[[Any], object]) -> str:
    """A file that is there whole or not at all; its SHA-256."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        summed = _Summed(file)
        fill(summed)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    return summed.digest.hexdigest()


def blocks(shards: Sequence[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(position of its first row, rows) of every stretch of `size` rows at most."""
    first = 0
    for shard in shards:
        for start in range(0, len(shard), size):
            yield first + start, shard[start : start + size]
        first += len(shard)
