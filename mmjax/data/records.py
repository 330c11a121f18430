"""What every source yields: the record, the source protocol, the broken record."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np

from mmjax.errors import UserError


class Record(TypedDict):
    """One example. A plain dict at run time; absent keys are absent, never None.

    Sources give other values under any name: numbers, strings, arrays. These names mean
    the same in every source, and only text and key are always there.
    """

    text: list[str]  # captions, possibly none
    key: str  # a stable name
    label: NotRequired[int]  # index into the source's `class_names`; -1 for none
    image: NotRequired[np.ndarray]  # uint8 (H, W, 3), RGB
    # int32 (n,), an image by an image tokenizer, row by row; in place of `image` in a
    # source of tokens (`stage1`)
    image_tokens: NotRequired[np.ndarray]
    frames: NotRequired[np.ndarray]  # uint8 (N, H, W, 3), RGB, a video
    audio: NotRequired[np.ndarray]  # float32 (T,) in [-1, 1]
    audio_rate: NotRequired[int]  # samples a second
    vector: NotRequired[np.ndarray]  # float32 (D,); a sequence of vectors is (L, D)
    # float32 (N, 4), each (x, y, width, height) in pixels from the top left
    boxes: NotRequired[np.ndarray]
    box_labels: NotRequired[np.ndarray]  # int32 (N,)
    box_text: NotRequired[list[str]]  # a name or phrase for each box
    scene: NotRequired[Any]  # `mmjax.data.shapes.scene.Scene`


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
    """Records by position. Picklable: files are opened lazily, in each process.

    A source that is arrays, in memory or mapped, may also have `columns`: value's name
    -> array with a row for each record. None, or no such attribute, where it has not.
    """

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
    """Whose image tokens the records hold in place of images; None for images.

    `fingerprint` (of the tokenizer's weights), `grid` (tokens a side), `vocab_size`: a
    source of tokens, and every view of one, has them as its attribute `stage1`.
    """
    return getattr(source, "stage1", None)


def head(source: Source) -> Source:
    """Records that stand for a source where all are alike: of a stream the first ones.

    A source without records by position has such a source as its attribute `head`.
    """
    return getattr(source, "head", source)


def left_out(source: Source) -> Sequence[BrokenRecord]:
    """What lies where the records lie and is none of them: place and reason of each.

    A source that passes over something has this as its attribute `left_out`.
    """
    return getattr(source, "left_out", ())


def covers(source: Source) -> str:
    """What a source's fingerprint would notice, for result cards.

    A source whose fingerprint does not read all has this as its attribute `covers`.
    """
    return getattr(source, "covers", "every value")


def next_good(
    source: Source, index: int, read: Callable[[int], Any] | None = None
) -> tuple[Any, list[BrokenRecord]]:
    """(`read(index)`, errors of the broken records before it), or of the next it reads.

    Without `read`, the record. UserError where all records are broken.
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


def texts(of: Callable[[int], Iterable[str]], count: int) -> Iterator[str]:
    """The texts `of(i)` of each record i, but for broken ones."""
    for i in range(count):
        try:
            yield from of(i)
        except BrokenRecord:
            continue  # the pipeline reports it; only good text counts


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
