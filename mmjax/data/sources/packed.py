"""One `.npz` with all pictures: `packed:/d/cifar.npz?template=a photo of a {}.`

Either encoded bytes, picture i being `blob[offsets[i]:offsets[i + 1]]`, or pixels,
`image` or `images` uint8 (N, H, W[, 3]). Beside them, by the same i: `label` or
`labels`, `name`; and `class_names`.
"""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data import image, records
from mmjax.data.records import BrokenRecord, Record
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(path: str, text: str = "") -> Packed:
    """Reads `path`. text: arrays of strings that hold captions, comma separated."""
    return Packed(encoded.existing(path, "packed file"), text)


class Packed(encoded.Encoded):
    """Pictures held in memory; a pickle carries the path and reads it again."""

    def __init__(self, path: pathlib.Path, text: str):
        self.path, self.name, self.caption_fields = path, f"packed:{path}", text
        self._load()
        self.check_fields()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "text": self.caption_fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["text"])

    def _load(self) -> None:
        try:
            with np.load(self.path) as z:
                arrays = {name: z[name] for name in z.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot read {self.path}: {error}") from None
        self.blob, self.offsets = arrays.pop("blob", None), arrays.pop("offsets", None)
        self.pixels = arrays.pop("image", arrays.pop("images", None))
        if self.pixels is not None:
            self.pixels = _as_rgb(self.pixels, self.path)
            self.length = len(self.pixels)
        elif self.blob is not None and self.offsets is not None:
            self.length = len(self.offsets) - 1
        else:
            raise UserError(
                f"{self.path} holds no pictures: expected the arrays blob and offsets, "
                f"or image; it has {', '.join(arrays) or 'none'}"
            )
        self._read_labels(arrays)
        self.columns = {
            name: array
            for name, array in arrays.items()
            if array.shape[:1] == (self.length,) and array.ndim == 1
        }

    def _read_labels(self, arrays: dict[str, np.ndarray]) -> None:
        labels = arrays.pop("label", arrays.pop("labels", None))
        if labels is None:
            return
        if labels.shape != (self.length,) or labels.dtype.kind not in "iu":
            raise UserError(
                f"{self.path}: labels are {labels.dtype} {labels.shape}, expected "
                f"integers, one for each of {self.length} pictures"
            )
        top = int(labels.max(initial=-1)) + 1
        names = arrays.pop("class_names", np.arange(top).astype(str)).tolist()
        if top > len(names):
            raise UserError(
                f"{self.path}: label {top - 1} has none of {len(names)} names"
            )
        self.labels, self.class_names = labels, tuple(names)

    def __getitem__(self, i: int) -> Record:
        if self.pixels is None:
            return super().__getitem__(i)
        i = records.position(i, self.length)
        fields = self.fields(i)
        out = Record(
            image=self.pixels[i], text=self.captions(i), key=str(fields["key"])
        )
        return {**out, "label": fields["label"]} if self.class_names else out

    def place(self, i: int) -> str:
        return f"{self.path}, picture {i}"

    def encoded(self, i: int) -> bytes:
        if self.pixels is not None:
            return image.encode_png(self.pixels[i])
        start, end = self.offsets[i : i + 2].tolist()
        if not 0 <= start <= end <= len(self.blob):
            reason = f"offsets {start}..{end} outside a blob of {len(self.blob)} bytes"
            raise BrokenRecord(self.place(i), reason)
        return self.blob[start:end].tobytes()

    def fields(self, i: int) -> Mapping[str, Any]:
        out = {name: column[i].item() for name, column in self.columns.items()}
        if self.class_names:
            out["label"] = int(self.labels[i])
        return {**out, "key": str(out.get("name", i))}

    def fingerprint(self) -> str:
        size = self.path.stat().st_size
        names = self.class_names
        return records.digest("packed", self.path.name, size, self.length, names)


def _as_rgb(pixels: np.ndarray, path: pathlib.Path) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise UserError(
            f"{path}: pixels are {pixels.dtype} {pixels.shape}, expected uint8"
            " (N, H, W) or (N, H, W, 3)"
        )
    if pixels.ndim == 3 or pixels.shape[3] == 1:
        pixels = pixels.reshape(*pixels.shape[:3], 1)
        return np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return pixels
