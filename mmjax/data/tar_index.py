"""Where the samples of a tar shard lie: its headers read once, 16 bytes kept of each.

A sample is the members of one key. A member whose header is damaged is lost alone: the
next header that fits its own checksum is looked for, block by block.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.data.content import SAMPLE
from mmjax.data.storage import File
from mmjax.errors import UserError

PARTS = ("image", "json", "txt", "cls")
# A sample: the block where its headers begin, how many blocks it takes, the sum of its
# headers (name and size of each part), a bit for each part. Its key and the places of
# its parts are read in the shard, from there.
ROW = np.dtype([(name, "<u4") for name in ("start", "blocks", "check", "more")])
ODD_BIT = 1 << 8  # of `more`: `start` counts in the shard's ODD
# A sample that does not lie in one place: (offset, size) of each part, where headers of
# it begin, and whether its members cannot be told apart.
ODD = np.dtype([("spans", "<i8", (len(PARTS), 2)), ("at", "<i8"), ("unclear", "<i8")])
UNCLEAR = (
    "the key comes more than once, with unlike members: which of them belong "
    "together is unclear"
)
_ALL, _TEXTS = range(len(PARTS)), PARTS[1:]
_NEAR = 16  # members among which all of a sample lie
_NAMES = ("utf-8", "surrogateescape")
_BLOCK = tarfile.BLOCKSIZE
_PADDING = 20 * _BLOCK  # a tar ends on a multiple of it
_ABOUT = (b"L", b"K", b"x", b"X", b"g")  # types of headers about the next member
_LONGEST = 1 << 20  # bytes of a header about the next member
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the samples of one shard lie.

    rows: (n,) ROW. odd: (m,) ODD. cut: the byte at which the file breaks off, -1 when
    whole. why: what is wrong there. left_out: place in the file and reason of what lies
    there and is no part of a sample. digest: of all keys, places, headers and ends of
    members.
    """

    rows: np.ndarray
    odd: np.ndarray
    cut: int
    why: str
    left_out: tuple[tuple[str, str], ...]
    digest: str


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of a tar: its type as tarfile has it, the bytes from offset on.

    start: where its headers begin, with those about it.
    """

    name: str
    type: bytes
    link: str
    offset: int
    size: int
    start: int


@dataclasses.dataclass(frozen=True)
class Damage:
    """Bytes of a tar, `start` to `end`, that are no members; `end` -1 at a cut."""

    start: int
    end: int
    reason: str


def build(file: File, name: str, suffixes: Sequence[str]) -> Index:
    """Reads every header of a tar; `suffixes` are those of images."""
    total = hashlib.sha256()
    if file.read_at(0, 8).startswith(_PACKED):
        raise UserError(
            f"{name} is compressed, and no plain tar: shards are read by offset, "
            "so unpack it first (gunzip)"
        )
    parts = list(walk(file))
    read = [part for part in parts if isinstance(part, Member)]
    damages = [part for part in parts if isinstance(part, Damage)]
    for part in read:
        total.update(repr((part.name, part.type, part.link, part.offset)).encode())
        total.update(file.read_at(part.offset, min(SAMPLE, part.size)))
        if part.size > SAMPLE:
            end = part.offset + part.size - SAMPLE
            total.update(file.read_at(end, SAMPLE))
    if not read and damages and damages[0].start == 0:
        raise UserError(f"{name} is no plain tar ({damages[0].reason})")
    left = [(f"byte {d.start}", d.reason) for d in damages if d.end >= 0]
    cut = next((d for d in damages if d.end < 0), None)
    linked, lost = _follow_links(read)
    samples, others = _grouped(linked, suffixes)
    if cut and samples:  # the sample that the cut runs through
        last, (first, *_) = samples[-1], samples
        if any(p in first[1] and p not in last[1] for p in range(len(PARTS))):
            samples.pop()
    rows, odd = _packed(parts, samples, suffixes)
    for array in (rows, odd):
        total.update(array.tobytes())
    return Index(
        rows=rows,
        odd=odd,
        cut=cut.start if cut else -1,
        why=cut.reason if cut else "",
        left_out=(*left, *lost, *others),
        digest=total.hexdigest()[:16],
    )


def _packed(
    parts: Sequence[Member | Damage],
    samples: Sequence[tuple[str, dict[int, Member]]],
    suffixes: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Samples as ROW; as ODD, too, where walking from its start does not find one."""
    unclear = _unclear(samples)
    at = {part.start: k for k, part in enumerate(parts)}
    rows, odd = np.zeros(len(samples), ROW), []
    for n, (key, wanted) in enumerate(samples):
        mask = sum(1 << number for number in wanted)
        start = min(member.start for member in wanted.values())
        stop = max(member.offset + member.size for member in wanted.values())
        near = parts[at[start] : at[start] + _NEAR]
        found = gather(near, mask, suffixes)
        blocks = -(-(stop - start) // _BLOCK)
        fits = start < _BLOCK << 32 and blocks < 1 << 32 and not unclear[n]
        if fits and found and found[:2] == (key, wanted):
            rows[n] = start // _BLOCK, blocks, found[2], mask
            continue
        first = next(iter(wanted.values())).start
        spans = [(m.offset, m.size) if m else (-1, -1) for m in map(wanted.get, _ALL)]
        rows[n] = len(odd), 0, zlib.crc32(key.encode(*_NAMES)), mask | ODD_BIT
        odd.append((spans, first, unclear[n]))
    return rows, np.array(odd, ODD)


def gather(
    parts: Iterable[Member | Damage], mask: int, suffixes: Sequence[str]
) -> tuple[str, dict[int, Member], int] | None:
    """(key, member of each part, sum of their headers) of the sample that begins here.

    mask: bit p is set for each of PARTS that it has. None where they do not all come
    in the next _NEAR members, plain and without damage before them.
    """
    key, members, total = "", {}, 0
    for part in itertools.islice(parts, _NEAR):
        if isinstance(part, Damage) or (not members and not _plain(part)):
            return None
        name, number = _part_of(part.name, suffixes)
        if not members:
            key = name
        if number >= 0 and name == key and number not in members and _plain(part):
            members[number] = part
            total = zlib.crc32(repr((part.name, part.size)).encode(*_NAMES), total)
            if mask == sum(1 << n for n in members):
                return key, members, total
    return None


def key_at(file: File, at: int) -> str:
    """The key of the member whose headers begin at a byte; "" where there is none."""
    part = next(walk(file, at), None)
    return part.name.rpartition(".")[0] if isinstance(part, Member) else ""


def _part_of(name: str, suffixes: Sequence[str]) -> tuple[str, int]:
    """(key, number of the part) of a member's name; -1 for what is no part."""
    key, dot, suffix = name.rpartition(".")
    kind = suffix.lower()
    if not dot or posixpath.basename(name).startswith("."):
        return key, -1
    return key, 0 if kind in suffixes else PARTS.index(kind) if kind in _TEXTS else -1


def walk(file: File, at: int = 0, size: int | None = None) -> Iterator[Member | Damage]:
    """Every member of a tar in order, and what is damaged between them.

    at, size: the byte to begin at, and the one to end at, as if no more were there.
    """
    size, about, begin = file.size if size is None else size, {}, -1
    while True:
        block = file.read_at(at, _BLOCK) if at < size else b""
        header = _quick(block)
        if header is None:
            with contextlib.suppress(tarfile.HeaderError, ValueError):
                header = tarfile.TarInfo.frombuf(block, *_NAMES)
        if header is None or header.size < 0:
            blank = block == bytes(_BLOCK)
            following = _next_header(file, at + _BLOCK, size)
            end = following if following >= 0 else size
            if not (blank and _is_end_mark(file, at, end, last=following < 0)):
                yield Damage(at, following, _reason(block, following - at))
            if following < 0:
                return
            at, about, begin = following, {}, -1
            continue
        start, at = at, at + _BLOCK
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
        at += -(-length // _BLOCK) * _BLOCK


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
    return _Header(name.decode(*_NAMES), int(digits, 8), block[156:157], "")


def _next_header(file: File, at: int, size: int) -> int:
    """Where the next header with a right checksum starts; -1 for none."""
    while at < size:
        many = file.read_at(at, min(_BLOCK * 2048, size - at))
        for start in range(0, len(many), _BLOCK):
            block = many[start : start + _BLOCK]
            if block[148:156].strip(b"\0 ").isdigit():
                with contextlib.suppress(tarfile.HeaderError, ValueError):
                    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                    if header.size >= 0:
                        return at + start
        at += len(many) or size
    return -1


def _is_end_mark(file: File, at: int, end: int, *, last: bool) -> bool:
    """Whether all is blank: at the end, or where one tar was joined to another."""
    if not last and not 2 * _BLOCK <= end - at <= _PADDING:
        return False
    while at < end:
        data = file.read_at(at, min(1 << 20, end - at))
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
        key, number = _part_of(member.name, suffixes)
        if number < 0:
            _, dot, suffix = member.name.rpartition(".")
            hidden = posixpath.basename(member.name).startswith(".")
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


def _unclear(samples: Sequence[tuple[str, dict[int, Member]]]) -> list[bool]:
    """Whether a sample cannot be used: its key comes again, with other parts."""
    forms = collections.defaultdict(set)
    for key, parts in samples:
        forms[key].add(frozenset(parts))
    return [len(forms[key]) > 1 for key, _ in samples]


def locate(
    file: File, row: np.void, odd: np.ndarray, suffixes: Sequence[str]
) -> tuple[str, dict[int, tuple[int, int]]] | None:
    """(key, (offset, size) of each part) of a sample, out of the shard itself.

    odd: its shard's. None where the headers there are not those that were indexed.
    """
    start, blocks, check, more = row.tolist()
    mask = more & (ODD_BIT - 1)
    if not more & ODD_BIT:
        at = start * _BLOCK
        stop = min(file.size, at + blocks * _BLOCK)
        sample = gather(walk(file, at, stop), mask, suffixes)
        if sample is None or sample[2] != check:
            return None
        return sample[0], {p: (m.offset, m.size) for p, m in sample[1].items()}
    spans, at, _ = odd[start].tolist()
    key = key_at(file, at)
    if zlib.crc32(key.encode(*_NAMES)) != check:
        return None
    return key, {p: tuple(spans[p]) for p in _ALL if mask >> p & 1}
