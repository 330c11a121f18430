"""A folder of `.npy` files, an array a value, mapped into memory: `npy:/d/views`."""

from __future__ import annotations

import numpy as np

from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources import encoded
from mmjax.errors import UserError


def open(
    path: str, columns: str = "", text: str = "", label: str = "", key: str = ""
) -> columns_lib.Columns:
    """Maps the files of the folder `path`, or one file, into memory.

    An array's name is its file's. Options as in npz; `class_names.npy` names classes.
    """
    place = encoded.existing(path, "npy file or folder")
    files = sorted(place.glob("*.npy")) if place.is_dir() else [place]
    if not files:
        raise UserError(f"{place} holds no .npy files")
    arrays = {}
    for file in files:
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read {file}: {error}") from None
    return columns_lib.Columns(
        f"npy:{place}",
        arrays,
        again=(open, (str(place), columns, text, label, key)),
        columns=columns,
        text=text,
        label=label,
        key=key,
    )
