"""Records that are rows of arrays: the part that npz, npy and tables of numbers share.

An array NAME beside NAME_offsets, integers (N + 1,), is cut into pieces: record i has
NAME[offsets[i]:offsets[i + 1]]. So are `blob` and `offsets`, the bytes of encoded
images: the array `image`.
"""

from __future__ import annotations

import collections
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data import image, records
from mmjax.data.records import BrokenRecord, Record
from mmjax.data.sources import encoded
from mmjax.errors import UserError

_ALIASES = {"images": "image", "labels": "label"}
_HASHED = 1 << 26  # bytes of a column that its fingerprint reads; of larger, every k-th


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
          columns: values of the records, `name:array`, comma separated; empty: all
            that have as many rows as `image` or the labels, where there are such.
          text: arrays of strings that hold captions, comma separated.
          label: the array of classes, integers or strings; `label` where there is one.
          key: the array of the records' names; `key` or `name` where there is one.
          broken: position -> why that record cannot be used.
        """
        self.name, self.again, self.broken = name, again, dict(broken or {})
        arrays = {_ALIASES.get(k, k): array for k, array in arrays.items()}
        names = arrays.pop("class_names", arrays.get(f"{label}_names"))
        if "blob" in arrays and "offsets" in arrays:
            arrays["image"] = arrays.pop("blob")
            arrays["image_offsets"] = arrays.pop("offsets")
        offsets = {
            k.removesuffix("_offsets"): arrays.pop(k)
            for k in list(arrays)
            if k.endswith("_offsets") and k.removesuffix("_offsets") in arrays
        }
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
        self.arrays = {k: arrays[v] for k, v in wanted.items() if v not in offsets}
        cut = {k: v for k, v in wanted.items() if v in offsets}
        self.cut = {k: (arrays[v], offsets[v]) for k, v in cut.items()}
        self.length = self._count(bool(columns), label)
        inverse = {v: k for k, v in wanted.items()}
        self._read_label(inverse.get(label, label), names)
        self._read_text(",".join(inverse.get(t, t) for t in text.split(",")))
        self.key = inverse.get(key, key)
        if "image" in self.arrays:
            self.arrays["image"] = as_rgb(self.arrays["image"], name)
        hidden = ("text", *self.caption_fields.split(","))
        self.columns = (
            None
            if self.broken
            else {k: array for k, array in self.arrays.items() if k not in hidden}
        )
        self.check_fields()

    def __reduce__(self) -> tuple:
        return self.again

    def _count(self, every: bool, label: str) -> int:
        """The number of rows; without `every`, arrays unlike image or label go."""
        lengths = {k: len(a) if a.ndim else 0 for k, a in self.arrays.items()}
        lengths |= {k: len(offsets) - 1 for k, (_, offsets) in self.cut.items()}
        if not every:
            first = lengths.get("image", lengths.get(label or "label"))
            for k in [k for k in lengths if first is not None and lengths[k] != first]:
                del lengths[k], (self.cut if k in self.cut else self.arrays)[k]
        if not lengths or max(lengths.values()) < 1:
            raise UserError(f"{self.name} holds no rows: its arrays are {lengths}")
        if len(set(lengths.values())) > 1:
            usual = collections.Counter(lengths.values()).most_common(1)[0][0]
            fit = ",".join(k for k, length in lengths.items() if length == usual)
            raise UserError(
                f"{self.name}: its arrays have unlike numbers of rows, {lengths}: "
                f"choose with columns=, such as columns={fit}"
            )
        return next(iter(lengths.values()))

    def _read_label(self, label: str, names: np.ndarray | None) -> None:
        values = self.arrays.get(label or "label")
        usable = values is not None and values.ndim == 1 and values.dtype.kind in "iubU"
        if not usable:
            if label:
                kind = values.dtype if values is not None else "pieces"
                raise UserError(
                    f"{self.name}: labels are {kind} {getattr(values, 'shape', '')}, "
                    f"expected integers or strings, one for each of {self.length} rows"
                )
            return
        self.arrays.pop(label or "label")
        if values.dtype.kind == "U":
            labels, self.class_names = encoded.label_index(values.tolist(), self.name)
            self.arrays["label"] = np.asarray(labels, np.int32)
            return
        top = int(values.max(initial=-1)) + 1
        names = np.arange(top).astype(str) if names is None else names
        if top > len(names):
            raise UserError(
                f"{self.name}: label {top - 1} has none of {len(names)} names"
            )
        self.class_names = tuple(names.tolist())
        self.arrays["label"] = np.asarray(values, np.int32)

    def _read_text(self, text: str) -> None:
        strings = {k for k, array in self.arrays.items() if array.dtype.kind in "US"}
        auto = [name for name in encoded.AUTO.split(",") if name in strings]
        self.caption_fields = text or ",".join(auto[:1])
        other = self.arrays.get("text", self.cut.get("text", (None,))[0])
        if other is not None and "text" not in strings:
            raise UserError(
                f"{self.name}: its array text is {other.dtype} {other.shape}, and text "
                "holds captions: give it another name with columns=NAME:text"
            )

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, self.length)
        fields = dict(self.fields(i))
        place = self.place(i)
        text = self._texts_of(fields, place)
        for name in (*self.caption_fields.split(","), "text"):
            fields.pop(name, None)
        if "image" in self.cut:
            fields["image"] = image.decode(self.encoded(i), place)
        return {**fields, "text": text}

    def place(self, i: int) -> str:
        return f"{self.name.partition(':')[2]}, row {i}"

    def encoded(self, i: int) -> bytes:
        if "image" in self.cut:
            return self._piece("image", i).tobytes()
        return image.encode_png(self.arrays["image"][i])

    def fields(self, i: int) -> Mapping[str, Any]:
        if i in self.broken:
            raise BrokenRecord(self.place(i), self.broken[i])
        out = {name: _value(array[i]) for name, array in self.arrays.items()}
        out |= {name: self._piece(name, i) for name in self.cut if name != "image"}
        keys = filter(None, (self.key, "key", "name"))
        return {**out, "key": str(next((out[k] for k in keys if k in out), i))}

    def _piece(self, name: str, i: int) -> np.ndarray:
        array, offsets = self.cut[name]
        start, end = offsets[i : i + 2].tolist()
        if not 0 <= start <= end <= len(array):
            reason = f"offsets {start}..{end} outside {name} of {len(array)} rows"
            raise BrokenRecord(self.place(i), reason)
        return array[start:end]

    def fingerprint(self) -> str:
        arrays = self.arrays | {k: array for k, (array, _) in self.cut.items()}
        parts = [(k, a.dtype.str, a.shape, _checksum(a)) for k, a in arrays.items()]
        bounds = [_checksum(offsets) for _, offsets in self.cut.values()]
        broken = sorted(self.broken)
        named = self.class_names, self.caption_fields, self.key
        return records.digest("columns", sorted(parts), bounds, broken, named)


def _value(row: Any) -> Any:
    """A row as a plain number or string, or as an array."""
    if row.ndim and row.dtype.kind not in "US":
        return np.asarray(row)
    return row.tolist()


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array[:: 1 + array.nbytes // _HASHED]))


def as_rgb(pixels: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) as (N, H, W, 3)."""
    grey = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 1)
    if pixels.dtype != np.uint8 or not (grey or pixels.ndim == 4):
        raise UserError(
            f"{where}: its array image is {pixels.dtype} {pixels.shape}, expected uint8"
            " (N, H, W) or (N, H, W, 3): give another array its own name with "
            "columns=NAME:image"
        )
    if not grey:
        return pixels
    pixels = pixels.reshape(*pixels.shape[:3], 1)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))
