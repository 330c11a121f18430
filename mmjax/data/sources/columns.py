"""Records that are rows of arrays: the part that npz, npy and tables of numbers share.

An array NAME beside NAME_offsets, integers (N + 1,), is cut into pieces: record i has
NAME[offsets[i]:offsets[i + 1]]. So are `blob` and `offsets`, the bytes of encoded
images: the array `image`.
"""

import collections
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmjax.data import image, records
from mmjax.data.records import BrokenRecord, Record
from mmjax.data.sources import encoded
from mmjax.errors import UserError

_ALIASES = {"images": "image", "labels": "label"}
_HASHED = 1 << 26  # bytes of a mapped column that its fingerprint reads: every k-th row
_CHUNK = 1 << 24  # bytes


class Ragged:
    """An array that is cut at its offsets: piece i is the array of record i."""

    def __init__(self, array: np.ndarray, offsets: np.ndarray):
        self.array, self.offsets, self.dtype = array, offsets, array.dtype
        self.shape = (len(offsets) - 1, None, *array.shape[1:])


class Columns(encoded.Encoded):
    """Records of arrays that have a row each.

    `columns` has the arrays themselves, for whole batches by one index; None where a
    record is broken.
    """

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        *,
        again: tuple,
        columns: str = "",
        text: str = "",
        label: str = "",
        key: str = "",
        broken: Mapping[int, str] | None = None,
    ):
        """Checks the arrays.

        Args:
          again: (function, arguments) that open this source; what a pickle carries.
          columns, text, label, key: see `open_arrays`. Without `columns`, all arrays
            that have as many rows as `image` or the labels, where there are such.
          broken: position -> why that record cannot be used.
        """
        self.name, self.again, self.broken = name, again, dict(broken or {})
        arrays = {_ALIASES.get(k, k): array for k, array in arrays.items()}
        names = arrays.pop("class_names", arrays.get(f"{label}_names"))
        if "blob" in arrays and "offsets" in arrays:
            arrays["image"] = arrays.pop("blob")
            arrays["image_offsets"] = arrays.pop("offsets")
        for part in [k for k in arrays if f"{k}_offsets" in arrays]:
            arrays[part] = Ragged(arrays[part], arrays.pop(f"{part}_offsets"))
        wanted = encoded.pairs_of(columns)
        if wanted:
            extra = [*text.split(","), label, key]
            wanted |= {k: k for k in extra if k in arrays and k not in wanted.values()}
        else:
            wanted = {k: k for k in arrays if not k.endswith("_names")}
        for part in (*wanted.values(), *filter(None, [label, key])):
            if part not in arrays:
                has = ", ".join(sorted(arrays)) or "none"
                raise UserError(f"{name} has no array {part!r}: it has {has}")
        self.arrays: dict[str, Any] = {k: arrays[v] for k, v in wanted.items()}
        self.length = self._count(bool(columns), label)
        renamed = {v: k for k, v in wanted.items()}
        self._read_label(renamed.get(label, label), names)
        self._read_text(",".join(renamed.get(t, t) for t in text.split(",")))
        self.key = renamed.get(key, key)
        pixels = self.arrays.get("image")
        if pixels is not None and not isinstance(pixels, Ragged):
            self.arrays["image"] = as_rgb(pixels, name)
        self.hidden = ("text", *self.caption_fields.split(","))
        whole = {k: a for k, a in self.arrays.items() if isinstance(a, np.ndarray)}
        shown = {k: a for k, a in whole.items() if k not in self.hidden}
        self.columns = None if self.broken else shown
        self.check_fields()

    def __reduce__(self) -> tuple:
        return self.again

    def _count(self, every: bool, label: str) -> int:
        """The number of rows; without `every`, arrays unlike image or label go."""
        lengths = {k: (*a.shape, 0)[0] for k, a in self.arrays.items()}
        first = lengths.get("image", lengths.get(label or "label"))
        if not every and first is not None:
            lengths = {k: count for k, count in lengths.items() if count == first}
            self.arrays = {k: self.arrays[k] for k in lengths}
        if not lengths or max(lengths.values()) < 1:
            raise UserError(f"{self.name} holds no rows: its arrays are {lengths}")
        [(usual, _), *others] = collections.Counter(lengths.values()).most_common()
        if others:
            fit = ",".join(k for k, length in lengths.items() if length == usual)
            raise UserError(
                f"{self.name}: its arrays have unlike numbers of rows, {lengths}: "
                f"choose with columns=, such as columns={fit}"
            )
        return usual

    def _read_label(self, label: str, names: np.ndarray | None) -> None:
        values = self.arrays.get(label or "label")
        if values is None or len(values.shape) != 1 or values.dtype.kind not in "iubU":
            if label:
                raise UserError(
                    f"{self.name}: labels are {values.dtype} {values.shape}, expected "
                    f"integers or strings, one for each of {self.length} rows"
                )
            return
        del self.arrays[label or "label"]
        if values.dtype.kind == "U":
            found, self.class_names = encoded.label_index(values.tolist(), self.name)
            unfit = {i: n for i, n in enumerate(found) if isinstance(n, str)}
            values = np.array([-1 if isinstance(n, str) else n for n in found])
            self.broken |= unfit
        else:
            kept = (values >= -1) & (values < encoded.MAX_CLASSES)
            limit = f"is not between -1 and {encoded.MAX_CLASSES - 1}"
            for i in np.flatnonzero(~kept).tolist():
                self.broken[i] = f"its label {values[i]} {limit}"
            values = np.where(kept, values, -1)
            count = int(values.max(initial=-1)) + 1
            names = np.arange(count).astype(str) if names is None else names
            if count > len(names):
                raise UserError(
                    f"{self.name}: label {count - 1} has none of {len(names)} names"
                )
            self.class_names = tuple(names.tolist())
        self.arrays["label"] = np.asarray(values, np.int32)

    def _read_text(self, text: str) -> None:
        strings = {k for k, array in self.arrays.items() if array.dtype.kind in "US"}
        auto = [name for name in encoded.AUTO.split(",") if name in strings]
        self.caption_fields = text or ",".join(auto[:1])
        if "text" in self.arrays and "text" not in strings:
            other = self.arrays["text"]
            raise UserError(
                f"{self.name}: its array text is {other.dtype} {other.shape}, and text "
                "holds captions: give it another name with columns=NAME:text"
            )

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, self.length)
        fields, place = self.fields(i), self.place(i)
        text = self._texts_of(fields, place)
        shown = {k: value for k, value in fields.items() if k not in self.hidden}
        return {**shown, **self.decode(i, place), "text": text}

    def place(self, i: int) -> str:
        return f"{self.name.partition(':')[2]}, row {i}"

    def encoded(self, i: int) -> bytes:
        row = self._row("image", i)
        packed = isinstance(self.arrays["image"], Ragged)
        return row.tobytes() if packed else image.encode_png(row)

    def decode(self, i: int, place: str) -> dict[str, Any]:
        if isinstance(self.arrays.get("image"), Ragged):
            return super().decode(i, place)
        return {"image": self._row("image", i)} if "image" in self.arrays else {}

    def fields(self, i: int) -> Mapping[str, Any]:
        if i in self.broken:
            raise BrokenRecord(self.place(i), self.broken[i])
        out = {name: self._row(name, i) for name in self.arrays if name != "image"}
        keys = filter(None, (self.key, "key", "name"))
        return {**out, "key": str(next((out[k] for k in keys if k in out), i))}

    def _row(self, name: str, i: int) -> Any:
        """A row as a plain number or string, or as an array."""
        array = self.arrays[name]
        if not isinstance(array, Ragged):
            row = array[i]
            arrays = row.ndim and row.dtype.kind not in "US"
            return np.asarray(row) if arrays else row.tolist()
        start, end = array.offsets[i : i + 2].tolist()
        if not 0 <= start <= end <= len(array.array):
            reason = f"offsets {start}..{end} outside {name} of {len(array.array)} rows"
            raise BrokenRecord(self.place(i), reason)
        piece = array.array[start:end]
        return piece.tolist() if piece.dtype.kind in "US" else piece

    def fingerprint(self) -> str:
        cut = {k: a for k, a in self.arrays.items() if isinstance(a, Ragged)}
        arrays = self.arrays | {k: pieces.array for k, pieces in cut.items()}
        parts = [(k, a.dtype.str, a.shape, _checksum(a)) for k, a in arrays.items()]
        bounds = [_checksum(pieces.offsets) for pieces in cut.values()]
        broken = sorted(self.broken)
        named = self.class_names, self.caption_fields, self.key
        return records.digest("columns", sorted(parts), bounds, broken, named)


def open_arrays(
    kind: str,
    read: Callable[[pathlib.Path], dict[str, np.ndarray]],
    path: str,
    columns: str = "",
    text: str = "",
    label: str = "",
    key: str = "",
) -> Columns:
    """Opens arrays, by their names; `read` is what npz and npy differ in.

    columns: values of the records, `name:array`, comma separated; empty: all. text:
    arrays with captions, strings (N,) or (N, K), comma separated. label: the array of
    classes, integers or strings; their names are `class_names`, or LABEL_names; empty:
    `label` where there is one. key: the array of the records' names; empty: `key` or
    `name`.

    `image` is uint8 (N, H, W) or (N, H, W, 3); encoded images are `blob` uint8, image i
    being `blob[offsets[i]:offsets[i + 1]]`.
    """
    file = encoded.existing(path, f"{kind} file or folder")
    again = open_arrays, (kind, read, str(file), columns, text, label, key)
    options = {"columns": columns, "text": text, "label": label, "key": key}
    return Columns(f"{kind}:{file}", read(file), again=again, **options)


def _checksum(array: np.ndarray) -> int:
    """The sum of all rows; of an array that is mapped, and large, of every k-th."""
    if isinstance(array, np.memmap):
        array = array[:: 1 + array.nbytes // _HASHED]
    many = max(1, _CHUNK * len(array) // max(1, array.nbytes))
    total = 0
    for start in range(0, len(array), many):
        total = zlib.crc32(np.ascontiguousarray(array[start : start + many]), total)
    return total


def as_rgb(pixels: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) as (N, H, W, 3)."""
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise UserError(
            f"{where}: its array image is {pixels.dtype} {pixels.shape}, expected uint8"
            " (N, H, W) or (N, H, W, 3): give another array its own name with "
            "columns=NAME:image"
        )
    grey = pixels.shape[3] == 1
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3)) if grey else pixels
