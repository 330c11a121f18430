"""Damaged JPEGs: sizes as libjpeg sees them, and its warnings, which nobody hands on.

libjpeg decodes a JPEG whose data are damaged, fills in grey or repeats, and warns.
OpenCV lets it print the warning to file descriptor 2 and returns the image. `watch`
collects these warnings; with MMJAX_STRICT_JPEG=1 in the environment, such an image is
a broken record. Either costs: one JPEG at a time is decoded in a process.
"""

import contextlib
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
STRICT = "MMJAX_STRICT_JPEG"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that give a size
_SAID = b"Corrupt JPEG data", b"Premature end of JPEG", b"Inconsistent progression"
_watchers: list[list[tuple[str, str]]] = []
_alone = threading.Lock()  # file descriptor 2 is the process's


def size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG's first frame header, found as libjpeg finds it.

    Pillow reads some segments that libjpeg skips: its size may be another's.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        while data[at : at + 1] == b"\xff":  # any number of them may lead
            at += 1
        marker = data[at] if at < len(data) else 0
        at += 1
        if marker in _FRAMES and at + 7 <= len(data):
            return struct.unpack_from(">HH", data, at + 3)[::-1]
        if marker in (0xD9, 0xDA):  # the end, a scan
            return None
        if marker > 1 and not 0xD0 <= marker <= 0xD7:  # those have no length
            at += int.from_bytes(data[at : at + 2], "big")
    return None


@contextlib.contextmanager
def watch() -> Iterator[list[tuple[str, str]]]:
    """A list that fills with (place, warning) of the damaged JPEGs decoded inside."""
    seen: list[tuple[str, str]] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def strict() -> bool:
    """Whether a damaged JPEG is a broken record."""
    return os.environ.get(STRICT, "") not in ("", "0")


def unheard(mode: str) -> None:
    """ValueError in strict mode of a JPEG that Pillow decodes, without a warning."""
    if strict():
        raise ValueError(
            f"{STRICT} refuses damaged JPEGs, and of this one ({mode}) nobody can "
            "tell: OpenCV does, of grey and RGB ones; install it, or save it as such"
        )


def decoded(read: Callable[[], T], place: str) -> T:
    """What `read` gives; its warning is handed on, or in strict mode a ValueError."""
    if not strict() and not _watchers:
        return read()
    with _alone:
        out, said = _heard(read)
    if said:
        reason = said[0].decode("ascii", "replace").strip()
        if strict():
            raise ValueError(f"the JPEG is damaged ({reason}); {STRICT} refuses it")
        for seen in _watchers:
            seen.append((place, reason))
    return out


def _heard(read: Callable[[], T]) -> tuple[T, list[bytes]]:
    """(what `read` gives, the damage that libjpeg prints meanwhile)."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        kept = None
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            out = read()
        finally:
            os.close(2) if kept is None else os.dup2(kept, 2)
        file.seek(0)
        lines = file.read().splitlines(keepends=True)
    said = [line for line in lines if line.startswith(_SAID)]
    if kept is not None:
        os.close(kept)
        # what other threads had to say
        os.write(2, b"".join(line for line in lines if line not in said))
    return out, said
