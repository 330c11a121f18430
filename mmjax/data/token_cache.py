"""Images encoded once: a folder of tokens or latents that a second stage trains from.

    DIR/header.json                     whose tokens of what; `complete` when all are in
    DIR/tokens-00000.array_record ...   a record each, `SHARD` to a file

A record is the length of its JSON (uint32, little endian), the JSON (key, captions,
label) and the codes, row by row: tokens uint16 or uint32, latents float16, all little
endian. One that could not be read keeps its place, as its reason: record i of the cache
is record i of its source, so that a run draws the same rows from either.

Legend: b rows of a batch, n tokens of an image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from mmjax import errors, schema
from mmjax.data import image, pipeline
from mmjax.data.fields.image import Field
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError

FORMAT = "mmjax-tokens-1"
HEADER = "header.json"
SHARD = 4096  # records to a file: what a killed run writes again, at most
Encode = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stage1:
    """An image tokenizer, or an autoencoder with latents.

    fingerprint: of its weights. grid: codes a side. vocab_size: of a tokenizer.
    channels: of a latent.
    """

    fingerprint: str
    grid: int
    vocab_size: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        schema.at_least(1, self, "grid", "channels" if self.channels else "vocab_size")

    @property
    def name(self) -> str:
        """What a record calls its codes."""
        return "latent" if self.channels else "image_tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a record's codes."""
        grid, c = self.grid, self.channels
        return (grid, grid, c) if c else (grid * grid,)

    @property
    def dtype(self) -> np.dtype:
        """Of a code on disk. A half has 11 bits of a latent, whose deviation is 1."""
        if self.channels:
            return np.dtype("<f2")
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a cache says of itself: `header.json`.

    source: name, fingerprint and number of records of what was encoded. image: the
    view that was encoded. about: for people (run, step, resizing library).
    """

    format: str
    complete: bool
    stage1: Stage1
    source: Mapping[str, Any]
    image: Mapping[str, Any]
    class_names: tuple[str, ...]
    shard: int
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        if type(self.source.get("records")) is not int:
            raise ValueError(f"source.records is {self.source.get('records')!r}")
        schema.at_least(0, self, "records")
        schema.at_least(1, self, "shard")

    @property
    def records(self) -> int:
        """How many records the source had that was encoded."""
        return self.source["records"]

    def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """The record files, whether they are written or not."""
        return list(self.each_file(folder))

    def each_file(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        """`files`, one by one: a damaged header may ask for any number of them."""
        count = -(-self.records // self.shard)
        return (folder / f"tokens-{k:05d}.array_record" for k in range(count))

    def identity(self) -> dict[str, Any]:
        """What two caches must share to be the same."""
        values = dataclasses.asdict(self)
        source = {k: v for k, v in values.pop("source").items() if k != "name"}
        values["stage1"] = {k: v for k, v in values["stage1"].items() if v}
        kept = {k: v for k, v in values.items() if k not in ("complete", "about")}
        return {**kept, "source": source}


def fingerprint(tree: Any) -> str:
    """16 hex digits of the SHA-256 of all arrays of a tree, by path, type and shape.

    Mappings are taken by sorted key, sequences and named tuples by position; None and
    what holds no arrays leave no trace, so that `{}` and an absent key are the same.
    """
    digest = hashlib.sha256()
    for path, leaf in _leaves(tree, ""):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        inner = sorted((str(key), value) for key, value in tree.items())
    elif isinstance(tree, tuple | list):
        inner = [(str(i), value) for i, value in enumerate(tree)]
    else:
        inner = []
        if tree is not None:
            yield path, tree
    for name, value in inner:
        yield from _leaves(value, f"{path}/{name}")


def pack(record: Mapping[str, Any], codes: np.ndarray, dtype: np.dtype) -> bytes:
    """A record and its codes as bytes; see the module's head."""
    kept = {k: record[k] for k in ("key", "text", "label") if k in record}
    return _bytes(kept, codes.astype(dtype))


def pack_broken(reason: str) -> bytes:
    """The bytes that stand in for a record that could not be read."""
    return _bytes({"broken": reason}, np.zeros(0, np.uint16))


def _bytes(values: Mapping[str, Any], codes: np.ndarray) -> bytes:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    head = text.encode("utf-8", "surrogatepass")
    return struct.pack("<I", len(head)) + head + codes.tobytes()


def unpack(data: bytes, header: Header, place: str) -> Record:
    """The record that `pack` wrote, with `image_tokens` int32 (n,), or `latent`
    float32 (g, g, c).

    Raises BrokenRecord where a broken one was written, or where the bytes are not what
    was written.
    """
    values = unpack_head(data, place)
    if "broken" in values:
        raise BrokenRecord(place, values["broken"])
    start, stage1 = 4 + struct.unpack_from("<I", data)[0], header.stage1
    try:
        codes = np.frombuffer(data, stage1.dtype, offset=start)
    except ValueError as error:
        raise BrokenRecord(place, f"the codes are damaged: {error}") from None
    if codes.size != (wanted := math.prod(stage1.shape)):
        what = "latent numbers" if stage1.channels else "image tokens"
        raise BrokenRecord(place, f"{codes.size} {what}, expected {wanted}")
    kind = np.float32 if stage1.channels else np.int32
    return {**values, stage1.name: codes.astype(kind).reshape(stage1.shape)}


def unpack_head(data: bytes, place: str) -> dict[str, Any]:
    """All but the codes of a record; BrokenRecord where it is damaged."""
    try:
        size = struct.unpack_from("<I", data)[0]
        return schema.parse_json(data[4 : 4 + size])
    except (struct.error, ValueError) as error:
        raise BrokenRecord(place, f"the record is damaged: {error}") from None


def read_header(folder: pathlib.Path) -> Header | None:
    """The header of a cache; None where the folder has none.

    Raises:
      UserError: it is of another format.
    """
    path = folder / HEADER
    if not path.exists():
        return None
    values = schema.read_json(path, fix="encode the images again")
    if values.get("format") != FORMAT:
        raise UserError(f"{path} is no header of image tokens ({FORMAT})")
    return schema.from_mapping(Header, values, str(path))


def write(
    source: Source,
    encode: Encode,
    out: str | pathlib.Path,
    *,
    stage1: Stage1,
    image_cfg: Field,
    batch_size: int,
    threads: int = 2,
    shard: int = SHARD,
    max_broken: float = 0.01,
    about: Mapping[str, Any] | None = None,
    files: Callable[[Sequence], Sequence] = lambda all_files: all_files,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Header:
    """Encodes every record of a source, or the rest of one that was cut short.

    Args:
      encode: uint8 (b, S, S, 3) images, the evaluation views, to codes (b, ...);
        called with `batch_size` rows alone, so that it compiles once.
      out: the cache's folder. A file becomes part of it when it is whole.
      max_broken: share of broken records at which it ends in a UserError.
      files: chooses, of the cache's numbered files, those that are written here.
      progress: called with the records done and in all, after each batch.

    Returns:
      The header, `complete` where no file is missing. Where the folder holds the same
      tokens already, nothing is done.

    Raises:
      UserError: the folder holds codes of another stage 1, source or view, or other
        files; too many broken records.
    """
    out = pathlib.Path(out)
    asked = Header(
        format=FORMAT,
        complete=False,
        stage1=stage1,
        source={
            "name": source.name,
            "fingerprint": source.fingerprint(),
            "records": len(source),
        },
        image={k: getattr(image_cfg, k) for k in ("size", "method", "mode")},
        class_names=tuple(source.class_names),
        shard=shard,
        about=dict(about or {}, resized_by=image.backend()),
    )
    header = _begin(out, asked)
    budget, total = pipeline.BrokenBudget(max_broken), header.records
    if header.complete:
        progress(total, total)
        return header
    for number, path in files([*enumerate(header.files(out))]):
        start = number * header.shard
        stop = min(start + header.shard, total)
        if path.exists():
            progress(stop, total)
            continue
        starts = range(start, stop, batch_size)
        spans = [(at, min(at + batch_size, stop)) for at in starts]
        batches = grain.MapDataset.source(spans).map(
            functools.partial(_batch, source, image_cfg, batch_size)
        )
        running = pipeline.run(batches, threads=threads, workers=0)
        with _whole_file(path) as writer, contextlib.closing(running):
            for (_, done), (pixels_bhw3, rows) in zip(spans, running, strict=True):
                codes = _checked(encode(pixels_bhw3), stage1, batch_size)
                broken = [row for row in rows if isinstance(row, BrokenRecord)]
                budget.add(len(rows), len(broken), broken)
                for row, code in zip(rows, codes, strict=False):
                    if isinstance(row, BrokenRecord):
                        writer.write(pack_broken(str(row)))
                    else:
                        writer.write(pack(row, code, stage1.dtype))
                progress(done, total)
    if all(path.exists() for path in header.each_file(out)):
        header = dataclasses.replace(header, complete=True)
        _write_header(out, header)
    return header


def _batch(
    source: Source, image_cfg: Field, batch_size: int, span: tuple[int, int]
) -> tuple[np.ndarray, list[Any]]:
    """Images (batch_size, S, S, 3) and a Record or BrokenRecord for each."""
    side, rows = image_cfg.size, []
    pixels_bhw3 = np.zeros((batch_size, side, side, 3), np.uint8)
    for row, i in enumerate(range(*span)):
        try:
            record = source[i]
        except BrokenRecord as error:
            rows.append(error)
            continue
        pixels_bhw3[row] = image_cfg.evaluate(record["image"])
        rows.append({k: v for k, v in record.items() if k != "image"})
    return pixels_bhw3, rows


@contextlib.contextmanager
def _whole_file(path: pathlib.Path) -> Iterator[ArrayRecordWriter]:
    """A writer whose file gets its name when it is closed without an error."""
    with errors.writing(path) as part:
        writer = ArrayRecordWriter(str(part), "group_size:1")
        yield writer
        try:
            writer.close()
        except RuntimeError as error:  # what was written before is only checked here
            raise UserError(
                f"cannot write to {path.parent}: {error}; make room there and run the "
                "same command again"
            ) from None


def _begin(out: pathlib.Path, asked: Header) -> Header:
    """The header to go on from: the folder's own, or `asked`, now written there."""
    names = [path.name for path in out.iterdir()] if out.exists() else []
    header = read_header(out)  # after the names: another process may begin as well
    if header is None:
        if any(not name.startswith(".part-") for name in names):
            raise UserError(f"{out} holds other files: give --out a new folder")
        out.mkdir(parents=True, exist_ok=True)
        _write_header(out, asked)
        return asked
    asked = dataclasses.replace(asked, shard=header.shard)
    old, new = _flat(header.identity()), _flat(asked.identity())
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise UserError(
                f"{out} holds image tokens with {name} {old.get(name)}, not "
                f"{new.get(name)}: give --out another folder, or delete this one"
            )
    return header


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings inside opened up, with dotted names."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else {}
        out |= {f"{name}.{k}": v for k, v in inner.items()} or {name: value}
    return out


def _write_header(out: pathlib.Path, header: Header) -> None:
    text = json.dumps(dataclasses.asdict(header), indent=1)
    whole = out / f".part-{HEADER}-{uuid.uuid4().hex}"  # no other process' name
    with errors.writing(whole) as part:
        part.write_text(text, "utf-8")
    whole.replace(out / HEADER)


def _checked(codes: Any, stage1: Stage1, rows: int) -> np.ndarray:
    codes, wanted = np.asarray(codes), (rows, *stage1.shape)
    kinds, name = ("f", "floats") if stage1.channels else ("iu", "integers")
    if codes.shape != wanted or codes.dtype.kind not in kinds:
        raise UserError(
            f"stage 1 gave {codes.dtype} {codes.shape}, expected {name} {wanted}"
        )
    low, high = codes.min(), codes.max()
    if stage1.channels:
        if not max(-low, high) < np.finfo(stage1.dtype).max:
            raise UserError(
                f"stage 1 gave latents from {low} to {high}: its weights are broken, "
                "go back to an earlier checkpoint"
            )
    elif low < 0 or high >= stage1.vocab_size:
        raise UserError(
            f"the tokenizer gave tokens {low} to {high}, outside its vocabulary of "
            f"{stage1.vocab_size}"
        )
    return codes
