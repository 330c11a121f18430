"""A folder of `.npy` files, an array a value, mapped into memory: `npy:/d/views`."""

import functools
import pathlib

import numpy as np

from mmjax import errors
from mmjax.data.sources import columns
from mmjax.errors import UserError


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays mapped into memory, of one file or of a folder's, by the files' names."""
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .npy files")
    arrays = {}
    for file in files:
        if reason := errors.plain(file):
            raise UserError(f"cannot read {file}: {reason}")
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # of a damaged header, many kinds
            raise UserError(f"cannot read {file}: {error}") from None
    return arrays


open = functools.partial(columns.open_arrays, "npy", read)
