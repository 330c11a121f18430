"""The arrays of one `.npz`, a row a record: `npz:/d/uci.npz?columns=x:pix,y:fou`."""

import functools
import os
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
            needed = sum(member.file_size for member in z.zip.infolist())
            held = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if needed > held:
                raise UserError(
                    f"{path} unfolds to {needed / 2**30:.1f} GiB, and this machine has "
                    f"{held / 2**30:.1f}: write its arrays as a folder of .npy, which "
                    "is read row by row (npy:FOLDER)"
                )
            return dict(z)
    except UserError:
        raise
    except Exception as error:  # of a damaged zip file or header, many kinds
        raise UserError(f"cannot read {path}: {error}") from None


open = functools.partial(columns.open_arrays, "npz", read)
