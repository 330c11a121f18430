"""What devices send each other in a step, read from a partitioned program's text.

A program is computations that call each other; a loop's body is written once. Read it
as the partitioner leaves it (`mmjax.planning.program`): later passes of XLA's CPU
back-end widen what is sent in 16 bits.
"""

import collections
import dataclasses
import graphlib
import math
import re
from collections.abc import Mapping

import numpy as np

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter"),
    *("all-to-all", "collective-permute", "collective-broadcast"),
)
_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+)[ (].*\{$")
_SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+\w*|c64|c128)\[([\d,]*)\]")
_CALL = re.compile(r"(?:to_apply|calls|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_CONSTANT = re.compile(r"%?([\w.\-]+) = [su]\d+\[\] constant\((\d+)\)")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*\)?)\))?"
                   r" ?\{([^}]*)\}")  # fmt: skip
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation, all of its runs together."""

    kind: str  # one of KINDS
    size: float  # bytes of its result on a device, a run
    group: tuple[int, ...]  # ids of the devices that the first of its groups joins
    runs: float  # a step
    where: str  # the operation's name in the program

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a step, by the algorithms that send least.

        All-reduce is reduce-scatter and all-gather: 2 (n-1)/n of the array.
        """
        n = len(self.group)
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "reduce-scatter": float(n - 1),  # of the result, a share of what goes in
            "all-to-all": (n - 1) / n,
        }
        return self.runs * self.size * share.get(self.kind, 1.0)


def collectives(text: str) -> list[Collective]:
    """Every collective of a compiled module's text that joins several devices.

    Raises:
      ValueError: a loop with a collective whose number of turns is not known, or device
        groups in a form that is not understood.
    """
    bodies, entry = _computations(text)
    runs = _runs(bodies, entry)
    listed = []
    for name, lines in bodies.items():
        for line in lines:
            one = _collective(line, lines, runs[name])
            if one is not None and one.runs and len(one.group) > 1:
                if math.isnan(one.runs):
                    raise ValueError(f"{one.where} is in a loop of unknown length")
                listed.append(one)
    return listed


def by_kind(listed: list[Collective]) -> dict[str, float]:
    """Bytes that a device sends in a step, by kind."""
    sent: dict[str, float] = collections.defaultdict(float)
    for one in listed:
        sent[one.kind] += one.sent
    return dict(sent)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            hit = _COMPUTATION.match(line)
            if hit:
                current = bodies.setdefault(hit[1], [])
                entry = hit[1] if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        else:
            current.append(line)
    if not entry:
        raise ValueError("the program has no entry computation")
    return bodies, entry


def _runs(bodies: Mapping[str, list[str]], entry: str) -> dict[str, float]:
    """How often each computation runs in a call of the entry; NaN where unknown."""
    calls: dict[str, list[tuple[str, float]]] = {name: [] for name in bodies}
    for name, lines in bodies.items():
        for line in lines:
            turns = 1.0
            if " while(" in line:
                condition = re.search(r"condition=%?([\w.\-]+)", line)
                turns = _turns(bodies.get(condition[1], [])) if condition else math.nan
            calls[name] += [(callee, turns) for callee in _CALL.findall(line)]
            for branches in _BRANCHES.findall(line):
                names = re.findall(r"[\w.\-]+", branches)
                calls[name] += [(callee, 1.0) for callee in names]
    called = {name: {n for n, _ in calls[name] if n in bodies} for name in bodies}
    runs = dict.fromkeys(bodies, 0.0) | {entry: 1.0}
    for name in reversed([*graphlib.TopologicalSorter(called).static_order()]):
        for callee, turns in calls[name]:
            if callee in bodies and runs[name]:
                runs[callee] += runs[name] * turns
    return runs


def _turns(condition: list[str]) -> float:
    """Of a loop that counts up from 0 below a constant, as scans are; else NaN."""
    text = "\n".join(condition)
    constants = dict(_CONSTANT.findall(text))
    limits = [
        float(constants[name])
        for operands in re.findall(r" compare\(([^)]*)\), direction=LT", text)
        for name in re.findall(r"%?([\w.\-]+)(?:,|$)", operands)
        if name in constants
    ]
    return limits[0] if len(limits) == 1 else math.nan


def _collective(line: str, lines: list[str], runs: float) -> Collective | None:
    hit = re.search(rf" ({'|'.join(KINDS)})(-start)?\(", line)
    if hit is None or " = " not in line:
        return None
    kind, result = hit[1], line[line.index(" = ") + 3 : hit.start()]
    shapes = _SHAPE.findall(result)
    if hit[2] and kind in ("all-gather", "collective-permute"):
        shapes = shapes[len(shapes) // 2 :]  # a start gives its operand too
    size = 0.0
    for dtype, dims in shapes:
        digits = re.search(r"\d+", dtype)
        bits = _BITS.get(dtype) or int(digits[0] if digits else 8)
        size += math.prod(int(n) for n in dims.split(",") if n) * bits / 8
    name, group = re.search(r'op_name="([^"]*)"', line), _group(line)
    if kind == "all-reduce" and _sliced(line, lines):
        kind, size = "reduce-scatter", size / len(group)
    return Collective(kind, size, group, runs, name[1] if name else "")


def _sliced(line: str, lines: list[str]) -> bool:
    """Whether nothing but a slice of a result is used.

    The partitioner writes the sum of shards so; compilers for GPUs and TPUs make one
    reduce-scatter of the two.
    """
    own = line.split(" = ")[0].split()[-1].lstrip("%")
    used = re.compile(rf"[(,] ?(?:\S+ )?%?{re.escape(own)}[,)]")
    users = [other for other in lines if used.search(other.partition(" = ")[2])]
    return bool(users) and all(" dynamic-slice(" in other for other in users)


def _group(line: str) -> tuple[int, ...]:
    """Ids of the first group of devices that a collective joins."""
    if pair := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line):
        return int(pair[1]), int(pair[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return tuple(int(n) for n in listed[1].split(","))
    if mesh := _MESH.search(line):
        return _of_mesh(*mesh.groups())
    if iota := re.search(rf"replica_groups={_IOTA.pattern}", line):
        groups, each = (int(n) for n in iota[1].split(","))
        return tuple(_iota(iota[2], iota[3]).reshape(groups, each)[0].tolist())
    raise ValueError(f"device groups of another form: {line.strip()[:200]}")


def _iota(dims: str, order: str | None) -> np.ndarray:
    """`[16,16]T(1,0)`: numbers from 0 in that shape, transposed, flat."""
    shape = [int(n) for n in dims.split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in order.split(",")] if order else None).ravel()


def _of_mesh(axes: str, ids: str | None, chosen: str) -> tuple[int, ...]:
    """`mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}`."""
    sizes = {n: int(s) for n, s in re.findall(r"'([^']+)'=(\d+)", axes)}
    flat = np.arange(math.prod(sizes.values()))
    if ids:
        form = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\)?)?", ids)
        if form is None:
            raise ValueError(f"device ids of another form: {ids}")
        flat = _iota(form[1], form[2])
    joined = {
        name: (int(before or 1), int(part or sizes[name]))
        for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
    }
    shape = []
    for name, size in sizes.items():  # an axis, or a part: (before, part, after)
        before, part = joined.get(name, (1, 1))
        shape += [before, part, size // (before * part)]
    grid = flat.reshape(shape)[(0, slice(None), 0) * len(sizes)]
    return tuple(grid.ravel().tolist())
