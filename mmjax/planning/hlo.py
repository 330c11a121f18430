"""What devices send each other in a step, read from a partitioned program's text.

A program is computations that call each other; a loop's body is written once. Read it
as the partitioner leaves it (`mmjax.planning.program`): later passes of XLA's CPU
back-end widen what is sent in 16 bits.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

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
    """One collective operation, all of its runs together.

    kind: one of KINDS. size: bytes of its result on a device, a run. group: ids of the
    devices that the first of its groups joins. runs: a step. where: the operation's
    name in the program.
    """

    kind: str
    size: float
    group: tuple[int, ...]
    runs: int
    where: str

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
    found = []
    for name, lines in bodies.items():
        for line in lines:
            made = _collective(line, lines, runs[name])
            if made is not None and runs[name] and len(made.group) > 1:
                if math.isnan(runs[name]):
                    raise ValueError(f"{made.where} is in a loop of unknown length")
                found.append(made)
    return found


def by_kind(found: list[Collective]) -> dict[str, float]:
    """Bytes that a device sends in a step, by kind."""
    sent: dict[str, float] = collections.defaultdict(float)
    for one in found:
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
            for callee, turns in _callees(line, bodies):
                if callee in bodies:
                    calls[name].append((callee, turns))
    runs = dict.fromkeys(bodies, 0.0)
    runs[entry] = 1.0
    for name in _callers_first(calls, entry):
        for callee, turns in calls[name]:
            runs[callee] += runs[name] * turns
    return runs


def _callees(line: str, bodies: Mapping[str, list[str]]) -> Iterator[tuple[str, float]]:
    turns = 1.0
    if " while(" in line:
        condition = re.search(r"condition=%?([\w.\-]+)", line)
        turns = _turns(bodies.get(condition[1], [])) if condition else math.nan
    for callee in _CALL.findall(line):
        yield callee, turns
    for listed in _BRANCHES.findall(line):
        for callee in listed.split(","):
            yield callee.strip().lstrip("%"), 1.0


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


def _callers_first(calls: Mapping[str, list], entry: str) -> list[str]:
    """Computations reached from the entry, each after all that call it."""
    order: list[str] = []
    seen: set[str] = set()
    stack = [(entry, False)]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack += [(callee, False) for callee, _ in calls[name]]
    return order[::-1]


def _collective(line: str, lines: list[str], runs: float) -> Collective | None:
    hit = re.search(rf" ({'|'.join(KINDS)})(-start)?\(", line)
    if hit is None or " = " not in line:
        return None
    kind, result = hit[1], line[line.index(" = ") + 3 : hit.start()]
    shapes = _SHAPE.findall(result)
    if hit[2] and kind in ("all-gather", "collective-permute"):
        shapes = shapes[len(shapes) // 2 :]  # a start gives its operand too
    size = sum(_bytes(dtype, dims) for dtype, dims in shapes)
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


def _bytes(dtype: str, dims: str) -> float:
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype) or int(digits[0] if digits else 8)
    return math.prod(int(n) for n in dims.split(",") if n) * bits / 8


def _group(line: str) -> tuple[int, ...]:
    """Ids of the first group of devices that a collective joins."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", line)
    if pairs:
        return int(pairs[1]), int(pairs[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return tuple(int(n) for n in listed[1].split(","))
    mesh = _MESH.search(line)
    if mesh:
        return _of_mesh(*mesh.groups())
    iota = re.search(rf"replica_groups={_IOTA.pattern}", line)
    if iota:
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
    shape, index = [], []
    for name, size in sizes.items():  # an axis, or a part: (before, part, after)
        before, part = joined.get(name, (1, 1))
        shape += [before, part, size // (before * part)]
        index += [0, slice(None), 0]
    grid, index = flat.reshape(shape), tuple(index)
    return tuple(np.asarray(grid[index]).ravel().tolist())
