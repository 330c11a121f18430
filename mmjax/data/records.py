"""What every source yields: the record, the source protocol, the broken record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np

from mmjax.errors import UserError


class Record(TypedDict):
    """One example. A plain dict at run time; absent keys are absent, never None.

    image: uint8 (H, W, 3), RGB. image_tokens: int32 (n,), what an image tokenizer made
    of the picture, row by row; in place of `image` in a source of tokens (`stage1`).
    text: captions, possibly none. key: a stable name. label: index into the source's
    `class_names`. boxes: float32 (N, 4), each (x, y, width, height) in pixels from the
    top left. scene: `mmjax.data.shapes.scene.Scene`.
    """

    image: NotRequired[np.ndarray]
    image_tokens: NotRequired[np.ndarray]
    text: list[str]
    key: str
    label: NotRequired[int]
    boxes: NotRequired[np.ndarray]
    scene: NotRequired[Any]


class BrokenRecord(Exception):
    """A record that cannot be read: skipped and counted by the pipeline.

    `place` says where (file, shard member or line), `reason` says why.
    """

    def __init__(self, place: str, reason: str):
        super().__init__(place, reason)  # both in args, so that it pickles
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@runtime_checkable
class Source(Protocol):
    """Records by position. Picklable: files are opened lazily, in each process."""

    name: str
    class_names: tuple[str, ...]  # () when records carry no label

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record:
        """The i-th record; raises BrokenRecord on corrupt data, IndexError past end."""
        ...

    def texts(self) -> Iterator[str]:
        """Every caption in order, without decoding images."""
        ...

    def fingerprint(self) -> str:
        """A hash of what identifies the data, for result cards."""
        ...


def stage1(source: Source) -> Mapping[str, Any] | None:
    """Whose image tokens the records hold in place of pictures; None for pictures.

    `fingerprint` (of the tokenizer's weights), `grid` (tokens a side), `vocab_size`: a
    source of tokens, and every view of one, has them as its attribute `stage1`.
    """
    return getattr(source, "stage1", None)


def next_good(
    source: Source, index: int, read: Callable[[int], Any] | None = None
) -> tuple[Any, list[BrokenRecord]]:
    """What `read` gives of record `index`, or of the next it can read.

    Args:
      read: takes a position, and raises BrokenRecord; None reads the record alone.

    Returns:
      That, and the errors of the broken records before it.

    Raises:
      UserError: all records are broken.
    """
    broken: list[BrokenRecord] = []
    read = read or source.__getitem__
    for k in range(len(source)):
        try:
            return read((index + k) % len(source)), broken
        except BrokenRecord as error:
            broken.append(error)
    if not broken:
        raise UserError(f"{source.name} holds no records")
    raise UserError(
        f"all {len(source)} records of {source.name} are broken: {broken[0]}"
    )


def digest(*parts: object) -> str:
    """16 hex digits that identify `parts` (anything `json` can write), in order."""
    data = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def position(i: int, length: int) -> int:
    """`i` as a plain non-negative index below `length`; IndexError otherwise."""
    i = int(i)
    if not -length <= i < length:
        raise IndexError(f"record {i} of a source with {length} records")
    return i % length
