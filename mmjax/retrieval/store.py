"""An index on disk: unit embeddings in npy shards, what each row is of, and of whom.

A folder of `rows-00000.npy`, `items-00000.jsonl`, ... and `index.json`, which is
written last: a folder without it is an unfinished index. npy and not ArrayRecord,
because a shard is then a matrix that can be mapped into memory, by numpy or by FAISS,
and copied to a device in one piece.

Legend: n rows, d embedding width.
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from mmjax import errors, schema
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
    """What an index is of; two builds with equal facts make the same files."""

    model: Mapping[str, Any]  # fingerprint, task, step, workdir (a hint where it is)
    source: Mapping[str, Any]  # spec, name, fingerprint, records
    preprocessing: Mapping[str, Any]  # the image config
    d: int  # width
    dtype: str = "float32"  # one of DTYPES
    normalised: bool = True  # rows have length one
    shard_rows: int = SHARD_ROWS  # of every shard but the last

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise UserError(
                f"index dtype {self.dtype!r}: use {', '.join(DTYPES)} (float16 is the "
                "closer of the two small ones, for numbers between -1 and 1)"
            )
        if self.shard_rows < 1:
            raise UserError(f"shard rows {self.shard_rows}: use 1 or more")


_FIELDS = tuple(field.name for field in dataclasses.fields(Facts))
_INSIDE = {  # what is read of those facts that are mappings
    "model": ("fingerprint", "step", "workdir"),
    "source": ("spec", "name", "fingerprint", "records"),
}


@dataclasses.dataclass(frozen=True)
class _Shard:
    """What index.json says of a shard: of its rows' file, and of its items'."""

    rows: int
    last_record: int
    bytes: tuple[int, int]
    sha256: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class _Saved(Facts):
    """index.json, as it must be to be read."""

    version: int = VERSION
    count: int = 0
    shards: tuple[_Shard, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        for name, keys in _INSIDE.items():
            for key in keys:
                if key not in getattr(self, name):
                    raise UserError(f"{name} has no {key}")
        if sum(shard.rows for shard in self.shards) != self.count:
            raise UserError(f"count is {self.count}, and its shards hold other rows")


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
        saved = _read_json(self.folder / UNFINISHED)
        for name, value in _plain(self.facts).items():
            before, now = saved[name], value
            if name == "model":  # the same weights may have moved
                before, now = before["fingerprint"], now["fingerprint"]
            if before != now:
                raise UserError(
                    f"{self.folder} is an unfinished index with {name} {saved[name]}, "
                    f"and this build has {value}: delete it, or give another folder"
                )
        self._shards = saved["shards"]
        _check_shards(self.folder, saved)
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
            norm_n1 = np.linalg.norm(rows_nd, axis=1, keepdims=True)
            rows_nd = rows_nd / np.maximum(norm_n1, 1e-12)
        self._rows.append(rows_nd.astype(DTYPES[self.facts.dtype]))
        self._items += items
        while len(self._items) >= self.facts.shard_rows:
            self._flush(self.facts.shard_rows)

    def _flush(self, count: int) -> None:
        rows_nd = np.concatenate(self._rows)
        items, self._items = self._items[:count], self._items[count:]
        self._rows = [rows_nd[count:]]
        array = io.BytesIO()
        np.save(array, rows_nd[:count].view(_STORED[self.facts.dtype]))
        lines = "".join(json.dumps(i, ensure_ascii=False) + "\n" for i in items)
        parts = array.getvalue(), lines.encode()
        for name, data in zip(_names(len(self._shards)), parts, strict=True):
            _write(self.folder / name, data)
        self._shards.append(
            {
                "rows": count,
                "last_record": int(items[-1]["record"]),
                "bytes": [len(data) for data in parts],
                "sha256": [hashlib.sha256(data).hexdigest() for data in parts],
            }
        )
        rows = sum(shard["rows"] for shard in self._shards)
        saved = {"version": VERSION, **_plain(self.facts), "count": rows}
        text = json.dumps(saved | {"shards": self._shards}, indent=1)
        _write(self.folder / UNFINISHED, text.encode())

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
        """What each row is of: `record`, `key`, `text` (captions). See `verify`."""
        self.verify("items")
        paths = [self.folder / _names(i)[1] for i in range(len(self.shards))]
        return [json.loads(x) for p in paths for x in p.read_text("utf-8").splitlines()]

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

    def verify(self, part: str = "") -> None:
        """Reads every file; UserError at one whose SHA-256 is not what was written.

        part: `rows` or `items` alone.
        """
        saved = _read_json(self.folder / DONE)
        for path, written in _files(self.folder, saved, "sha256"):
            if not path.name.startswith(part):
                continue
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != written:
                raise UserError(
                    f"{path} has SHA-256 {digest}, and {written} was written: copy it "
                    "again, or build the index again"
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
    saved = _read_json(folder / DONE)
    _check_shards(folder, saved)
    facts = Facts(**{name: saved[name] for name in _FIELDS})
    shards = []
    for number, noted in enumerate(saved["shards"]):
        path, shape = folder / _names(number)[0], (noted["rows"], facts.d)
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            shards.append(stored.view(DTYPES[facts.dtype]))
        except Exception as error:  # a damaged header can raise anything
            raise UserError(f"{path} is damaged ({error}): copy it again") from None
        if stored.shape != shape:
            raise UserError(
                f"{path} is {stored.shape}, and {DONE} says {shape}: build the index "
                "again"
            )
    digest = hashlib.sha256((folder / DONE).read_bytes()).hexdigest()[:16]
    return Store(folder, facts, saved["count"], tuple(shards), digest)


def _names(number: int) -> tuple[str, str]:
    return f"rows-{number:05d}.npy", f"items-{number:05d}.jsonl"


def _plain(facts: Facts) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(facts)))


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    saved = schema.read_json(path, fix="build the index again")
    if "version" not in saved:
        raise UserError(f"{path} is no index's: it has no version")
    missing = [n for n in (*_FIELDS, "shards", "count") if n not in saved]
    if missing or saved["version"] != VERSION:
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise UserError(
            f"{path} is of version {saved['version']}{lacks}; this program reads "
            f"version {VERSION}: build the index again"
        )
    try:
        schema.from_mapping(_Saved, saved, str(path))
    except UserError as error:
        raise UserError(f"{error}: it is damaged, build the index again") from None
    return saved


def _files(
    folder: pathlib.Path, saved: Mapping[str, Any], key: str
) -> Iterator[tuple[pathlib.Path, Any]]:
    """Every file of an index's shards, and what `key` says of it."""
    for number, shard in enumerate(saved["shards"]):
        for name, value in zip(_names(number), shard[key], strict=True):
            yield folder / name, value


def _check_shards(folder: pathlib.Path, saved: Mapping[str, Any]) -> None:
    for path, written in _files(folder, saved, "bytes"):
        size = path.stat().st_size if path.is_file() else None
        if size != written:
            state = "is missing" if size is None else f"has {size} bytes"
            raise UserError(
                f"{path} {state}, and {written} bytes were written: copy it again, or "
                "delete the folder and build the index again"
            )


def _write(path: pathlib.Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    with errors.writing(path) as part, part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def blocks(shards: Sequence[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(position of its first row, rows) of every stretch of `size` rows at most."""
    first = 0
    for shard in shards:
        for start in range(0, len(shard), size):
            yield first + start, shard[start : start + size]
        first += len(shard)
