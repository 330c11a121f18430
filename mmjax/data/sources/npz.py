"""The arrays of one `.npz`, a row a record: `npz:/d/uci.npz?columns=x:pix,y:fou`."""

import functools
import pathlib

import numpy as np

from mmjax import errors
from mmjax.data.sources import columns
from mmjax.errors import UserError


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All members of a `.npz`; UserError where it is none, or holds objects."""
    if reason := errors.plain(path):
        raise UserError(f"cannot read {path}: {reason}")
    try:
        with np.load(path, allow_pickle=False) as z:
            return dict(z)
    except Exception as error:  # of a damaged zip file or header, many kinds
        raise UserError(f"cannot read {path}: {error}") from None


open = functools.partial(columns.open_arrays, "npz", read)
