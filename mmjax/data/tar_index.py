"""Where the samples of a tar shard lie: its headers read once, and kept.

A sample is the members of one key. A member whose header is damaged is lost alone: the
next header that fits its own checksum is looked for, block by block.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import logging
import os
import pathlib
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from mmjax.cache import cache_dir
from mmjax.data.content import SAMPLE
from mmjax.errors import UserError

log = logging.getLogger(__name__)

VERSION = 2  # of the index files: raise it with their layout
PARTS = ("image", "json", "txt", "cls")
_BLOCK = tarfile.BLOCKSIZE
_PADDING = 20 * _BLOCK  # a tar ends on a multiple of it
_ABOUT = (b"L", b"K", b"x", b"X", b"g")  # types of headers about the next member
_LONGEST = 1 << 20  # bytes of a header about the next member
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the samples of one shard lie.

    keys: (n,) str. spans: int64 (n, 4, 2), (offset, size) of each of PARTS, offset -1
    where a sample has no such member. bad: (n,) str, why a sample cannot be used, "" if
    it can. cut: the byte at which the file breaks off, -1 when whole. why: what is
    wrong there. left_out: (m, 2) str, place in the file and reason, of what lies there
    and is no part of a sample. sum: of all headers and of the ends of all members.
    """

    keys: np.ndarray
    spans: np.ndarray
    bad: np.ndarray
    cut: int
    why: str
    left_out: np.ndarray
    sum: int


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of a tar: its type as tarfile has it, the bytes from offset on."""

    name: str
    type: bytes
    link: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Damage:
    """Bytes of a tar, `start` to `end`, that are no members; `end` -1 at a cut."""

    start: int
    end: int
    reason: str


def load(path: pathlib.Path, suffixes: Sequence[str]) -> Index:
    """The shard's index, from the cache or made now; the cache is only a cache."""
    status = path.stat()
    changed = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    identity = f"{VERSION} {suffixes} {path} {status.st_size} {changed}"
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    cached = cache_dir() / "tar_index" / f"{name[:32]}.npz"
    try:
        with np.load(cached) as z:
            single = {"cut": int(z["cut"]), "why": str(z["why"]), "sum": int(z["sum"])}
            return Index(**{**z, **single})
    except FileNotFoundError:
        pass
    except Exception as error:  # zip files, damaged, raise many kinds
        log.warning("remaking the index of %s: %s", path, error)
    index = build(path, suffixes)
    part = cached.with_name(f"{cached.name}.part{os.getpid()}")  # no *.npz as yet
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **dataclasses.asdict(index))
        part.replace(cached)
    except OSError as error:
        log.warning("cannot keep the index of %s: %s", path, error)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return index


def build(path: pathlib.Path, suffixes: Sequence[str]) -> Index:
    """Reads every header of a tar; `suffixes` are those of images."""
    read, damages, total = [], [], 0
    with path.open("rb") as file:
        if file.read(8).startswith(_PACKED):
            raise UserError(
                f"{path} is compressed, and no plain tar: shards are read by offset, "
                "so unpack it first (gunzip)"
            )
        for part in walk(file):
            if isinstance(part, Damage):
                damages.append(part)
                continue
            read.append(part)
            ends = {0, max(0, part.size - SAMPLE)}
            for start in sorted(ends):
                data = _at(file, part.offset + start, min(SAMPLE, part.size - start))
                total = zlib.crc32(data, total)
            total = zlib.crc32(repr(dataclasses.astuple(part)).encode(), total)
    if not read and damages and damages[0].start == 0:
        raise UserError(f"{path} is no plain tar ({damages[0].reason})")
    left = [(f"byte {d.start}", d.reason) for d in damages if d.end >= 0]
    cut = next((d for d in damages if d.end < 0), None)
    linked, lost = _follow_links(read)
    samples, others = _grouped(linked, suffixes)
    if cut and samples:  # the sample that the cut runs through
        last, (first, *_) = samples[-1], samples
        if any(p in first[1] and p not in last[1] for p in range(len(PARTS))):
            samples.pop()
    spans = np.full((len(samples), len(PARTS), 2), -1, np.int64)
    for row, (_, parts) in zip(spans, samples, strict=True):
        for number, member in parts.items():
            row[number] = member.offset, member.size
    return Index(
        keys=np.array([key for key, _ in samples], dtype=np.str_),
        spans=spans,
        bad=np.array(_unclear(samples), dtype=np.str_),
        cut=cut.start if cut else -1,
        why=cut.reason if cut else "",
        left_out=np.array([*left, *lost, *others], np.str_).reshape(-1, 2),
        sum=total,
    )


def walk(file: BinaryIO) -> Iterator[Member | Damage]:
    """Every member of a tar in order, and what is damaged between them."""
    size, at, about = file.seek(0, os.SEEK_END), 0, {}
    while True:
        block = _at(file, at, _BLOCK)
        blank = block == bytes(_BLOCK)
        header = None
        with contextlib.suppress(tarfile.HeaderError, ValueError):
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header is None or header.size < 0:
            following = _next_header(file, at + _BLOCK, size)
            end = following if following >= 0 else size
            if not (blank and _is_end_mark(file, at, end, last=following < 0)):
                yield Damage(at, following, _reason(block, following - at))
            if following < 0:
                return
            at, about = following, {}
            continue
        start, at = at, at + _BLOCK
        length = header.size
        if header.type in _ABOUT:
            data = _at(file, at, min(length, _LONGEST))
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
            yield Member(name, kind, link, at, length)
            about = {}
        if at + length > size:
            yield Damage(start, -1, "a header is incomplete")
            return
        at += -(-length // _BLOCK) * _BLOCK


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _next_header(file: BinaryIO, at: int, size: int) -> int:
    """Where the next header with a right checksum starts; -1 for none."""
    file.seek(at)
    while at < size:
        many = file.read(_BLOCK * 2048)
        for start in range(0, len(many), _BLOCK):
            block = many[start : start + _BLOCK]
            if block[148:156].strip(b"\0 ").isdigit():
                with contextlib.suppress(tarfile.HeaderError, ValueError):
                    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                    if header.size >= 0:
                        return at + start
        at += len(many) or size
    return -1


def _is_end_mark(file: BinaryIO, at: int, end: int, *, last: bool) -> bool:
    """Whether all is blank: at the end, or where one tar was joined to another."""
    if not last and not 2 * _BLOCK <= end - at <= _PADDING:
        return False
    file.seek(at)
    while at < end:
        data = file.read(min(1 << 20, end - at))
        if not data or data.strip(b"\0"):
            return False
        at += len(data)
    return True


def _reason(block: bytes, lost: int) -> str:
    if len(block) < _BLOCK:
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


def _follow_links(
    members: Sequence[Member],
) -> tuple[list[Member], list[tuple[str, str]]]:
    """Plain files, links among them as what they lead to; what else there is."""
    files = {posixpath.normpath(m.name): m for m in members if _plain(m)}
    out, lost = [], []
    for member in members:
        target, home = None, posixpath.dirname(member.name)
        if member.type == tarfile.LNKTYPE:
            target = files.get(posixpath.normpath(member.link))
        elif member.type == tarfile.SYMTYPE:
            target = files.get(posixpath.normpath(posixpath.join(home, member.link)))
        if _plain(member):
            out.append(member)
        elif target:
            at = {"offset": target.offset, "size": target.size}
            out.append(dataclasses.replace(member, type=tarfile.REGTYPE, **at))
        elif member.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            reason = f"a link to {member.link}, which is no file of the shard"
            lost.append((f"member {member.name}", reason))
        elif member.type != tarfile.DIRTYPE:
            term = {b"S": "a sparse file", b"6": "a FIFO"}.get(member.type)
            reason = f"{term or f'a member of type {member.type!r}'} and no plain file"
            lost.append((f"member {member.name}", reason))
    return out, lost


def _plain(member: Member) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def _grouped(
    members: Sequence[Member], suffixes: Sequence[str]
) -> tuple[list[tuple[str, dict[int, Member]]], list[tuple[str, str]]]:
    """Samples, (key, member of each part), and the other members: place, reason.

    A key ends at its name's last dot. `a.seg.png` is no sample beside `a.png`: another
    member of sample a, as in webdataset, unless it has an image and a text of its own.
    """
    named, others = [], collections.defaultdict(list)
    parts_of = collections.defaultdict(set)
    for member in members:
        key, dot, suffix = member.name.rpartition(".")
        kind = suffix.lower()
        number = 0 if kind in suffixes else (*PARTS[1:], kind).index(kind) + 1
        hidden = posixpath.basename(member.name).startswith(".")
        if hidden or not dot or number == len(PARTS):
            others["hidden" if hidden else f".{suffix}" if dot else ""].append(member)
            continue
        named.append((key, number, member))
        parts_of[key].add(number)
    samples: dict[str, list[dict[int, Member]]] = collections.defaultdict(list)
    order: list[tuple[str, dict[int, Member]]] = []
    for key, number, member in named:
        folder, slash, base = key.rpartition("/")
        outer = f"{folder}{slash}{base.partition('.')[0]}"
        own = 0 in parts_of[key] and len(parts_of[key]) > 1
        if outer != key and outer in parts_of and not own:
            others[member.name[len(outer) :]].append(member)
            continue
        # A key that comes again: its parts go to the first sample that lacks them.
        sample = next((s for s in samples[key] if number not in s), None)
        if sample is None:
            sample = {}
            samples[key].append(sample)
            order.append((key, sample))
        sample[number] = member
    left = []
    for suffix, group in others.items():
        many = f" ({len(group)} such members)" if len(group) > 1 else ""
        term = "a hidden file" if suffix == "hidden" else f"of a kind ({suffix})"
        if suffix != "hidden":
            term += " that is not read" if suffix else " no suffix"
        left.append((f"member {group[0].name}", f"{term}{many}"))
    return order, left


def _unclear(samples: Sequence[tuple[str, dict[int, Member]]]) -> list[str]:
    """Why a sample cannot be used: its key comes again, with other parts."""
    forms = collections.defaultdict(set)
    for key, parts in samples:
        forms[key].add(frozenset(parts))
    reason = (
        "the key comes more than once, with unlike members: which of them belong "
        "together is unclear"
    )
    return [reason if len(forms[key]) > 1 else "" for key, _ in samples]
