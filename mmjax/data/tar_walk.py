"""Members of a tar and what is damaged between them, from any place in it."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from mmjax.data.storage import File

BLOCK = tarfile.BLOCKSIZE
NAMES = ("utf-8", "surrogateescape")  # how names are read
_PADDING = 20 * BLOCK  # a tar ends on a multiple of it
_ABOUT = (b"L", b"K", b"x", b"X", b"g")  # types of headers about the next member
_LONGEST = 1 << 20  # bytes of a header about the next member


class Member(NamedTuple):
    """One file of a tar: its type as tarfile has it, the bytes from offset on.

    start: where its headers begin, with those about it.
    """

    name: str
    type: bytes
    link: str
    offset: int
    size: int
    start: int


class Damage(NamedTuple):
    """Bytes of a tar, `start` to `end`, that are no members; `end` -1 at a cut."""

    start: int
    end: int
    reason: str


def walk(file: File, at: int = 0, size: int | None = None) -> Iterator[Member | Damage]:
    """Every member of a tar in order, and what is damaged between them.

    at, size: the byte to begin at, and the one to end at, as if no more were there.
    """
    size, about, begin = file.size if size is None else size, {}, -1
    while True:
        block = file.read_at(at, BLOCK) if at < size else b""
        header = _quick(block)
        if header is None:
            with contextlib.suppress(tarfile.HeaderError, ValueError):
                header = tarfile.TarInfo.frombuf(block, *NAMES)
        if header is None or header.size < 0:
            blank = block == bytes(BLOCK)
            following = _next_header(file, at + BLOCK, size)
            end = following if following >= 0 else size
            if not (blank and _is_end_mark(file, at, end, last=following < 0)):
                yield Damage(at, following, _reason(block, following - at))
            if following < 0:
                return
            at, about, begin = following, {}, -1
            continue
        start, at = at, at + BLOCK
        begin = start if begin < 0 else begin
        length = header.size
        if header.type in _ABOUT:
            data = file.read_at(at, min(length, _LONGEST))
            about |= _about(header.type, data)
        else:
            name, link = about.get("path", header.name), about.get("linkpath")
            length = _whole(about.get("size"), length)
            link, kind = link or header.linkname, header.type
            if any(key.startswith("GNU.sparse") for key in about):
                kind = tarfile.GNUTYPE_SPARSE
            length *= kind not in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE)
            if at + length > size:
                yield Damage(size, -1, f"member {name} is incomplete")
                return
            yield Member(name, kind, link, at, length, begin)
            about, begin = {}, -1
        if at + length > size:
            yield Damage(start, -1, "a header is incomplete")
            return
        at += -(-length // BLOCK) * BLOCK


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes
    linkname: str


def _quick(block: bytes) -> _Header | None:
    """The header of a plain file, at 5 times tarfile's speed; None of all others."""
    digits, sums = block[124:136].strip(b" \0"), block[148:156].strip(b" \0")
    if block[156:157] not in (b"0", b"\0") or block[345:346] != b"\0":
        return None
    if not (digits.isdigit() and sums.isdigit()) or b"8" in digits or b"9" in digits:
        return None
    name = block[:100].partition(b"\0")[0]
    if b"8" in sums or b"9" in sums or name.endswith(b"/"):
        return None
    if int(sums, 8) != 256 + sum(block[:148]) + sum(block[156:]):
        return None
    return _Header(name.decode(*NAMES), int(digits, 8), block[156:157], "")


def _next_header(file: File, at: int, size: int) -> int:
    """Where the next header with a right checksum starts; -1 for none."""
    while at < size:
        many = file.read_at(at, min(BLOCK * 2048, size - at))
        for start in range(0, len(many), BLOCK):
            block = many[start : start + BLOCK]
            if block[148:156].strip(b"\0 ").isdigit():
                with contextlib.suppress(tarfile.HeaderError, ValueError):
                    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                    if header.size >= 0:
                        return at + start
        at += len(many) or size
    return -1


def _is_end_mark(file: File, at: int, end: int, *, last: bool) -> bool:
    """Whether all is blank: at the end, or where one tar was joined to another."""
    if not last and not 2 * BLOCK <= end - at <= _PADDING:
        return False
    while at < end:
        data = file.read_at(at, min(1 << 20, end - at))
        if not data or data.strip(b"\0"):
            return False
        at += len(data)
    return True


def _reason(block: bytes, lost: int) -> str:
    if len(block) < BLOCK:
        return "no header and no end mark"
    state = "damaged" if block.strip(b"\0") else "blank"
    more = f", and lost what lies behind it ({lost} bytes)" if lost > 0 else ""
    return f"the header here is {state}{more}"


def _about(kind: bytes, data: bytes) -> dict[str, str]:
    """What a header says of the next member: GNU's long names, POSIX's records."""
    if kind in b"LK":
        name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        return {"path" if kind == b"L" else "linkpath": name}
    out = {}
    while data and kind != b"g":  # of a global one, nothing concerns us
        length, _, rest = data.partition(b" ")
        count = int(length) if length.isdigit() else 0
        if not len(length) + 2 < count <= len(data):
            break
        record = rest[: count - len(length) - 2].decode("utf-8", "surrogateescape")
        key, _, value = record.partition("=")
        out[key], data = value, data[count:]
    return out


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise
