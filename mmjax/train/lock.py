"""A workdir, or a folder of checkpoints, belongs to one process at a time."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from mmjax.errors import UserError


@contextlib.contextmanager
def lock(
    workdir: pathlib.Path, kind: str = "workdir", key: str = "--workdir"
) -> Iterator[None]:
    """Holds a workdir for one process; the kernel lets go of it when that one dies.

    Args:
      workdir: is made if it is not there.
      kind, key: what messages call the folder, and what names it.

    Raises UserError where another process holds it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / ".lock").open("a+")
    except OSError as e:
        raise UserError(f"cannot write to {kind} {workdir}: {e.strerror}") from e
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            handle.seek(0)
            raise UserError(
                f"{kind} {workdir} is in use by process {handle.read().strip()}: "
                f"wait for it, or give {key} another folder"
            ) from e
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
