"""A workdir, or a folder of checkpoints, belongs to one process at a time."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

from mmjax.errors import UserError

_NAME = ".lock"


@contextlib.contextmanager
def lock(
    workdir: pathlib.Path, kind: str = "workdir", key: str = "--workdir"
) -> Iterator[None]:
    """Holds a workdir for one process; the kernel lets go of it when that one dies.

    Args:
      workdir: is made if it is not there, and taken away again where what is done
        while it is held raises before a file is written.
      kind, key: what messages call the folder, and what names it.

    Raises UserError where another process holds it, or it cannot be written.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / _NAME).open("a+")
    except OSError as e:
        raise UserError(f"cannot write to {kind} {workdir}: {e.strerror}") from e
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(workdir / _NAME)  # the one before may have taken it away just now
        except OSError as e:
            handle.seek(0)
            raise UserError(
                f"{kind} {workdir} is in use by process {handle.read().strip()}: "
                f"wait for it, or give {key} another folder"
            ) from e
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        try:
            yield
        except BaseException:
            if made and [p.name for p in workdir.rglob("*") if p.is_file()] == [_NAME]:
                shutil.rmtree(workdir, ignore_errors=True)
                for folder in made[1:]:
                    with contextlib.suppress(OSError):  # something else is in it
                        folder.rmdir()
            raise
