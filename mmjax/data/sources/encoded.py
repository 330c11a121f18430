"""What sources of encoded files share: decoding, values out of fields, checks."""

import abc
import contextlib
import logging
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import errors
from mmjax.data import image, records
from mmjax.data.records import BrokenRecord, Record
from mmjax.errors import UserError

log = logging.getLogger(__name__)

AUTO = "captions,caption,text"  # caption fields looked for when none is named
SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "avif")
MAX_CLASSES = 1 << 20  # the highest label that a number may give, and one
MAX_BYTES = 1 << 30  # of a record's file
_PROBED = 20  # records looked at, when opening, for the caption fields named


class Encoded(abc.ABC):
    """A source whose records hold an encoded file, mostly an image, and named fields.

    A subclass says where record i lies (`place`), reads its file (`encoded`) and its
    fields, and sets `name`, `class_names`, `length` and `caption_fields` (comma
    separated; a dot enters a mapping; empty: this data has no captions). `values` says
    which fields are values of the record: their name there -> the field. `labels`: the
    label of each record, or why it has none, where there are class names.
    """

    name: str
    class_names: tuple[str, ...] = ()
    length: int
    caption_fields: str = AUTO
    values: Mapping[str, str] = {}
    labels: Sequence[int | str] = ()
    left_out: Sequence[BrokenRecord] = ()

    @abc.abstractmethod
    def place(self, i: int) -> str:
        """Where record i lies, for messages."""

    @abc.abstractmethod
    def encoded(self, i: int) -> bytes:
        """The file's bytes as stored."""

    @abc.abstractmethod
    def fields(self, i: int) -> Mapping[str, Any]:
        """Everything but the file; `key` str, and `label` int where labelled."""

    @abc.abstractmethod
    def fingerprint(self) -> str: ...

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, self.length)
        fields, place = self.fields(i), self.place(i)
        text = self._texts_of(fields, place)
        record = self.decode(i, place) | {"text": text, "key": str(fields["key"])}
        if self.class_names:
            record["label"] = int(fields["label"])
        for name, field in self.values.items():
            if (value := pick(fields, field)) is not None:
                record[name] = as_value(name, value, place)
        return record

    def decode(self, i: int, place: str) -> dict[str, Any]:
        """The values that the file of record i gives."""
        return {"image": image.decode(self.encoded(i), place)}

    def label_of(self, i: int) -> int:
        """The label of record i; BrokenRecord where it has none."""
        label = self.labels[i]
        if isinstance(label, str):
            raise BrokenRecord(self.place(i), label)
        return label

    def captions(self, i: int) -> list[str]:
        i = records.position(i, self.length)
        return self._texts_of(self.fields(i), self.place(i))

    def texts(self) -> Iterator[str]:
        return records.texts(self.captions, self.length)

    def check_fields(self) -> None:
        """UserError when the first records hold none of the fields named."""
        probed: list[Mapping[str, Any]] = []
        for i in range(min(self.length, _PROBED)):
            with contextlib.suppress(BrokenRecord):
                probed.append(self.fields(i))
        captions = [] if self.caption_fields in ("", AUTO) else [self.caption_fields]
        wanted = [(names, "captions", "text") for names in captions]
        wanted += [(name, "values", "values") for name in self.values.values()]
        for names, term, option in wanted if probed else ():
            values = (pick(fields, n) for fields in probed for n in names.split(","))
            if all(value in (None, "", []) for value in values):
                has = ", ".join(sorted(set().union(*probed)))
                raise UserError(
                    f"{self.name} has no {term} in {names!r}: its fields are {has}; "
                    f"name one with {option}="
                )

    def _texts_of(self, fields: Mapping[str, Any], place: str) -> list[str]:
        names = self.caption_fields.split(",") if self.caption_fields else []
        texts = [text for name in names for text in listed(fields, name)]
        if names and not texts:
            reason = f"no caption in {self.caption_fields}: the record has "
            raise BrokenRecord(place, reason + ", ".join(sorted(fields)))
        return [clean(text, place) for text in texts]


def clean(text: Any, place: str) -> str:
    """A caption without its outer spaces; BrokenRecord when empty or no UTF-8 text."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise BrokenRecord(place, f"the caption {text!r} is no text")
        text.encode()
    except UnicodeError as error:
        raise BrokenRecord(place, f"the caption is not UTF-8: {error}") from None
    text = text.strip().lstrip("\ufeff")
    if not text:
        raise BrokenRecord(place, "the caption is empty")
    return text


def pick(fields: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; None where any part of the way is absent.

    Of a list of mappings, such as the objects of a photo, the list of their values.
    """
    value: Any = fields
    for part in name.split("."):
        if isinstance(value, list) and all(isinstance(v, Mapping) for v in value):
            value = [v[part] for v in value if part in v]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return None
    return value


def listed(fields: Mapping[str, Any], name: str) -> list[Any]:
    """The value at a dotted name as a list, of one unless it is one; empty for none."""
    value = pick(fields, name)
    return value if isinstance(value, list) else [] if value is None else [value]


def pairs_of(option: str) -> dict[str, str]:
    """`name:field,name` as {name: field, name: name}."""
    pairs = (part.partition(":") for part in option.split(",") if part)
    return {name: field or name for name, _, field in pairs}


def as_value(name: str, value: Any, place: str) -> Any:
    """A field as a record's value: lists of numbers as float32 or int32 arrays.

    `boxes` are float32 (N, 4) and `box_labels` int32 (N,), also where there are none.
    """
    dtype = {"boxes": np.float32, "box_labels": np.int32}.get(name)
    numbers = isinstance(value, list) and not any(isinstance(v, str) for v in value)
    if not dtype and not (numbers and value):
        return value
    try:
        array = np.asarray(value)
        whole = np.int32 if array.dtype.kind in "iub" else np.float32
        array = array.astype(dtype or whole)
        return array.reshape(-1, 4) if name == "boxes" else array
    except (ValueError, TypeError) as error:
        raise BrokenRecord(place, f"its {name} is no array: {error}") from None


def read_file(path: pathlib.Path, place: str) -> bytes:
    """A file's bytes; BrokenRecord at `place` when it cannot be read."""
    reason = errors.plain(path)
    try:
        if not reason and path.stat().st_size > MAX_BYTES:
            reason = f"it has {path.stat().st_size} bytes, above {MAX_BYTES}"
        if not reason:
            return path.read_bytes()
    except OSError as error:
        reason = error.strerror
    raise BrokenRecord(place, f"cannot read {path}: {reason}")


def existing(path: str, term: str) -> pathlib.Path:
    """The path, absolute; UserError where it is no file or folder."""
    absolute = pathlib.Path(path).expanduser().absolute()
    if not absolute.exists():
        raise UserError(f"{term} {absolute} does not exist")
    if not absolute.is_dir() and (reason := errors.plain(absolute)):
        raise UserError(f"cannot read the {term} {absolute}: {reason}")
    return absolute


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names, sorted: by their number where all are whole numbers."""
    distinct = set(names)
    numeric = all(name.isdecimal() for name in distinct)
    return tuple(sorted(distinct, key=lambda n: (int(n) if numeric else 0, n)))


def label_index(
    values: Sequence[Any], where: str
) -> tuple[list[int | str], tuple[str, ...]]:
    """(label of each value, or why it has none; class names).

    Whole numbers, also 3.0, keep theirs, and -1 is no class; words are sorted. Beside
    numbers, words come after the highest, so that one does not move the others.
    """
    numbers = [_number(value) for value in values]
    if any(n is not None and not n.is_integer() for n in numbers):
        pairs = zip(values, numbers, strict=True)  # fractions: each one is a word
        values = [v if n is None else str(v) for v, n in pairs]
        numbers = [None] * len(values)
    labels: list[int | str] = []
    for value, number in zip(values, numbers, strict=True):
        if number is not None:
            fits = -1 <= number < MAX_CLASSES
            whole = f"its label {value} is not between -1 and {MAX_CLASSES - 1}"
            labels.append(int(number) if fits else whole)
        elif value is None or value == "":
            labels.append("it has no label, as other records have")
        elif isinstance(value, list | dict | float):
            labels.append(f"its label {value!r} is neither a number nor a word")
        else:
            labels.append(-2)
    count = max((n for n in labels if isinstance(n, int)), default=-1) + 1
    words = class_order(str(v) for v, n in zip(values, labels, strict=True) if n == -2)
    index = {word: k for k, word in enumerate(words, max(0, count))}
    if words and count > 0:
        log.warning(
            "%s: its labels are numbers, but for %s: after the numbers, a class each",
            *(where, ", ".join(map(repr, words[:5]))),
        )
    labels = [
        index[str(value)] if label == -2 else label
        for value, label in zip(values, labels, strict=True)
    ]
    return labels, (*map(str, range(max(0, count))), *words)


def _number(value: Any) -> float | None:
    """A label as a number; None of words, and of what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    plain = not isinstance(value, str) or set(value) <= set("0123456789.-")
    return number if plain and math.isfinite(number) else None
