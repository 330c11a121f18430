"""The arrays of one `.npz`, a row a record: `npz:/d/uci.npz?columns=x:pix,y:fou`."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np

from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(
    path: str, columns: str = "", text: str = "", label: str = "", key: str = ""
) -> columns_lib.Columns:
    """Reads `path` into memory; arrays by the names of its members.

    columns: values of the records, `name:member`, comma separated; empty: all members.
    text: members with captions, strings (N,) or (N, K). label: the member of classes,
    integers or strings; their names are the member `class_names`, or LABEL_names. key:
    the member of the records' names.

    `image` is uint8 (N, H, W) or (N, H, W, 3); encoded images are `blob` uint8, image i
    being `blob[offsets[i]:offsets[i + 1]]`.
    """
    file = encoded.existing(path, "npz file")
    return columns_lib.Columns(
        f"npz:{file}",
        read(file),
        again=(open, (str(file), columns, text, label, key)),
        columns=columns,
        text=text,
        label=label,
        key=key,
    )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All members of a `.npz`; UserError where it is none, or holds objects."""
    try:
        with np.load(path, allow_pickle=False) as z:
            return {name: z[name] for name in z.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path}: {error}") from None
