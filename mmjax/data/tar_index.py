"""Where the samples of a tar shard lie: its headers read once, 12 bytes kept of each.

A sample is the members of one key. A member whose header is damaged is lost alone: the
next header that fits its own checksum is looked for, block by block.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from mmjax.data.content import SAMPLE
from mmjax.data.storage import File
from mmjax.data.tar_walk import BLOCK, NAMES, Damage, Member, walk
from mmjax.errors import UserError

PARTS = ("image", "json", "txt", "cls")
# A sample: the block where its headers begin, how many blocks it takes, the upper 24
# bits of a sum of its headers (name and size of each part), a bit for each part. Its
# key and the places of its parts are read in the shard, from there.
ROW = np.dtype([(name, "<u4") for name in ("start", "blocks", "check")])
ODD_BIT = 1 << 7  # of `check`: `start` counts in the shard's ODD
_FLAGS = (1 << 8) - 1
# A sample that does not lie in one place: (offset, size) of each part, where headers of
# it begin, and whether its members cannot be told apart.
ODD = np.dtype([("spans", "<i8", (len(PARTS), 2)), ("at", "<i8"), ("unclear", "<i8")])
UNCLEAR = (
    "the key comes more than once, with unlike members: which of them belong "
    "together is unclear"
)
_ALL, _TEXTS = range(len(PARTS)), PARTS[1:]
_NEAR = 16  # members among which all of a sample lie
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
        total.update(repr(part).encode())
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
        blocks = -(-(stop - start) // BLOCK)
        fits = start < BLOCK << 32 and blocks < 1 << 32 and not unclear[n]
        if fits and found and found[:2] == (key, wanted):
            rows[n] = start // BLOCK, blocks, found[2] & ~_FLAGS | mask
            continue
        first = next(iter(wanted.values())).start
        spans = [(m.offset, m.size) if m else (-1, -1) for m in map(wanted.get, _ALL)]
        rows[n] = len(odd), 0, _sum(key) & ~_FLAGS | mask | ODD_BIT
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
        if isinstance(part, Damage) or (not members and not plain(part)):
            return None
        name, number = part_of(part.name, suffixes)
        if not members:
            key = name
        if number >= 0 and name == key and number not in members and plain(part):
            members[number] = part
            total = _sum(f"{part.name} {part.size}", total)
            if mask == sum(1 << n for n in members):
                return key, members, total
    return None


def _sum(text: str, before: int = 0) -> int:
    return zlib.crc32(text.encode(*NAMES), before)


def key_at(file: File, at: int) -> str:
    """The key of the member whose headers begin at a byte; "" where there is none."""
    part = next(walk(file, at), None)
    return part.name.rpartition(".")[0] if isinstance(part, Member) else ""


def part_of(name: str, suffixes: Sequence[str]) -> tuple[str, int]:
    """(key, number of the part) of a member's name; -1 for what is no part."""
    key, dot, suffix = name.rpartition(".")
    kind = suffix.lower()
    if not dot or name[name.rfind("/") + 1] == ".":  # hidden
        return key, -1
    return key, 0 if kind in suffixes else PARTS.index(kind) if kind in _TEXTS else -1


def _follow_links(
    members: Sequence[Member],
) -> tuple[list[Member], list[tuple[str, str]]]:
    """Plain files, links among them as what they lead to; what else there is."""
    files = {posixpath.normpath(m.name): m for m in members if plain(m)}
    out, lost = [], []
    for member in members:
        target, home = None, posixpath.dirname(member.name)
        if member.type == tarfile.LNKTYPE:
            target = files.get(posixpath.normpath(member.link))
        elif member.type == tarfile.SYMTYPE:
            target = files.get(posixpath.normpath(posixpath.join(home, member.link)))
        if plain(member):
            out.append(member)
        elif target:
            at = {"offset": target.offset, "size": target.size}
            out.append(member._replace(type=tarfile.REGTYPE, **at))
        elif member.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            reason = f"a link to {member.link}, which is no file of the shard"
            lost.append((f"member {member.name}", reason))
        elif member.type != tarfile.DIRTYPE:
            term = {b"S": "a sparse file", b"6": "a FIFO"}.get(member.type)
            reason = f"{term or f'a member of type {member.type!r}'} and no plain file"
            lost.append((f"member {member.name}", reason))
    return out, lost


def plain(member: Member) -> bool:
    """Whether it is a file, with bytes of its own."""
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
        key, number = part_of(member.name, suffixes)
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
    start, blocks, check = row.tolist()
    mask = check & (ODD_BIT - 1)
    if not check & ODD_BIT:
        at = start * BLOCK
        stop = min(file.size, at + blocks * BLOCK)
        sample = gather(walk(file, at, stop), mask, suffixes)
        if sample is None or (sample[2] ^ check) & ~_FLAGS:
            return None
        return sample[0], {p: (m.offset, m.size) for p, m in sample[1].items()}
    if start >= len(odd):
        return None
    spans, at, _ = odd[start].tolist()
    key = key_at(file, at)
    if (_sum(key) ^ check) & ~_FLAGS:
        return None
    return key, {p: tuple(spans[p]) for p in _ALL if mask >> p & 1}
