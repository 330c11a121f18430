"""The one exception the command line prints as a message, and what a system refuses."""

import contextlib
import errno
import os
import pathlib
import re
import stat
from collections.abc import Iterator

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = tuple(map(os.strerror, (errno.EACCES, errno.EROFS)))


class UserError(Exception):
    """Bad input: a name, value or file that the caller can put right.

    Raise it, or a subclass, with one sentence that gives the offending value, what was
    expected in its place and the fix. The command line prints the message alone and
    exits with status 2.
    """


LEFT_OUT = 3  # exit status of a command that is done, but for what it named on stderr


def image_name(text: str) -> pathlib.Path:
    """The path of an image that will be written; as the `type` of an argument.

    Raises:
      UserError: its suffix is none of an image that figures and sheets are written as.
    """
    path = pathlib.Path(text)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"no image can be written as {text!r}: end its name in .png")
    return path


def no_room(error: BaseException | None) -> bool:
    """Whether a full disk is at the root; libraries wrap it, so causes are searched."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if re.search(r"ENOSPC|EFBIG|No space left|File too large", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def refused(error: BaseException) -> str:
    """What the system refused, in a sentence; "" for any other kind of error."""
    place = getattr(error, "filename", None)
    where = f"{os.fsdecode(place)}: " if isinstance(place, (str, bytes)) else ""
    if no_room(error):
        return f"{where}the disk is full: make room, and run the same command again"
    said = ""
    if isinstance(error, OSError) and error.errno:
        said = os.strerror(error.errno)
    elif isinstance(error, RuntimeError):  # of a library in C++: FAISS, ArrayRecord
        said = next((text for text in _SAID if text in str(error)), "")
    if not said:
        return ""
    return f"{where}{said}; give another place, or mend this one"


def plain(path: str | os.PathLike) -> str:
    """Why a path cannot be read as a file, "" where it can.

    FIFOs, devices and sockets are refused: reading one may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a NUL or a lone surrogate in the name
        return str(error)
    return "" if stat.S_ISREG(mode) else "it is no plain file"


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a name to write to; what is there has the name `path` when it is whole.

    Folders above it are made. What is no file, /dev/stdout say, is written as it is.

    Raises:
      UserError: the disk is full, read-only, or refuses in another way. What was at
        `path` before is still there.
    """
    path = pathlib.Path(os.path.realpath(path))
    # With the same suffix; and always of one name, so that a kill leaves one, at most.
    part = path.with_name(f".part-{path.name}")
    if path.exists() and not path.is_file() and not path.is_dir():
        part = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part != path:
            part.replace(path)
    except Exception as error:
        why = refused(error).replace(f"{part}: ", "")
        if not why:
            raise
        raise UserError(f"cannot write {path}: {why}") from error
    finally:
        if part != path:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
