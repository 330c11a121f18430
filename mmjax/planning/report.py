"""A plan as text, and as flat JSON."""

from collections.abc import Sequence
from typing import Any

from mmjax import tree
from mmjax.planning import hlo
from mmjax.planning.estimate import USABLE, Estimate, advice
from mmjax.planning.hardware import Hardware
from mmjax.planning.program import Program
from mmjax.planning.search import Candidate

_PARTS = ("compute", "memory", "link", "network")
STORAGE = 1e9  # bytes a second that a host writes, for want of a better number
_SHAPES = 4  # of an attention kernel, listed
_LABELS = {
    "params": "parameters",
    "frozen": "frozen weights",
    "optimizer": "optimizer",
    "average": "average of parameters",
    "batch": "batch",
    "other": "other state",
    "activations": "activations, gradients (compiler's temporaries)",
    "results": "results beside the state",
}


def flat(
    program: Program, plan: Estimate, hardware: Hardware, records: int = 0
) -> dict[str, Any]:
    """The plan's numbers: bytes, seconds, operations; shares are of one.

    records: of the training set, for epochs; 0 is not known.
    """
    sent, kernels = hlo.by_kind(program.collectives), program.attention.values()
    return {
        "params": program.params,
        "frozen_params": program.frozen,
        "devices": program.devices,
        **{f"mesh_{axis}": size for axis, size in program.mesh.items()},
        "batch_size": program.batch_size,
        "flops_per_step": program.flops.model,
        "flops_recomputed": program.flops.again,
        "bytes_per_device": program.bytes_per_device,
        **{f"bytes_{name}": size for name, size in program.sizes.items()},
        "collective_bytes": sum(sent.values()),
        **{f"collective_bytes_{kind}": size for kind, size in sorted(sent.items())},
        "hardware": hardware.name,
        "step_seconds": plan.step,
        "step_seconds_unhidden": plan.step_unhidden,
        **{f"{kind}_seconds": getattr(plan, kind) for kind in _PARTS},
        "mfu": plan.mfu,
        "attention": ", ".join(sorted({k.split()[0] for k in kernels})),
        "fits": plan.fits,
        **run(program, plan, hardware, records),
    }


def run(
    program: Program, plan: Estimate, hardware: Hardware, records: int = 0
) -> dict[str, float]:
    """Numbers of the whole run; none where its steps are not known."""
    if not program.steps:
        return {}
    hosts = -(-program.devices // hardware.host)
    hours, unhidden = (
        program.steps * step / 3600 for step in (plan.step, plan.step_unhidden)
    )
    rows = program.steps * program.batch_size
    return {
        "steps": program.steps,
        "rows": rows,
        **({"epochs": rows / records} if records else {}),
        "hours": hours,
        "hours_unhidden": unhidden,
        "device_hours": program.devices * hours,
        "device_hours_unhidden": program.devices * unhidden,
        "checkpoints": program.saves,
        "checkpoint_bytes": program.saved,
        "checkpoint_seconds": program.saved / hosts / STORAGE,
        "hosts": hosts,
        "host_rows_per_second": program.batch_size / plan.step / hosts,
        "host_bytes_per_second": program.batch_size * program.row / plan.step / hosts,
    }


def meshes(candidates: Sequence[Candidate]) -> str:
    """What a search compiled, a line each, the best first."""
    head = f"{'mesh':<28}{'a device':>10}{'at best':>10}{'unhidden':>10}"
    lines = [head, "-" * len(head)]
    for one in candidates:
        mesh = ",".join(f"{axis}={n}" for axis, n in one.program.mesh.items())
        times = (_seconds(s) for s in (one.plan.step, one.plan.step_unhidden))
        fits = "" if one.plan.fits else "  does not fit"
        numbers = "".join(f"{x:>10}" for x in (_bytes(one.plan.needed), *times))
        lines.append(f"{mesh:<28}{numbers}{fits}")
    return "\n".join(lines)


def text(
    program: Program,
    plan: Estimate,
    hardware: Hardware,
    records: int = 0,
    *,
    full: bool = False,
) -> str:
    """The plan for people. full: every parameter has a line. records: see `flat`."""
    mesh = ", ".join(f"{axis}={size}" for axis, size in program.mesh.items())
    frozen = f" and {program.frozen:,} frozen" if program.frozen else ""
    sizes = {_LABELS[name]: size for name, size in program.sizes.items() if size}
    sizes["in all"] = program.bytes_per_device
    sent = dict(sorted(hlo.by_kind(program.collectives).items()))
    return "\n".join(
        [
            f"{program.devices} devices ({mesh}), batch {program.batch_size:,}",
            "",
            tree.table(program.rows if full else _gathered(program.rows)),
            "",
            f"parameters       {program.params:,}{frozen}",
            f"FLOPs a step     {program.flops.model:.4g}, and "
            f"{program.flops.again:.4g} recomputed",
            "",
            "bytes on a device",
            *(f"  {name:<48} {_bytes(size):>10}" for name, size in sizes.items()),
            "",
            "a device sends in a step",
            *(f"  {kind:<48} {_bytes(size):>10}" for kind, size in sent.items()),
            "",
            *_attention(program),
            *_roofline(program, plan, hardware),
            *_run(run(program, plan, hardware, records)),
        ]
    )


def _attention(program: Program) -> list[str]:
    """A line for every kernel, and the first shapes that it takes."""
    shapes: dict[str, list[str]] = {}
    for shape, kernel in program.attention.items():
        shapes.setdefault(kernel, []).append(shape)
    lines = []
    for kernel, listed in shapes.items():
        lines += [f"  {kernel}", *(f"    {shape}" for shape in listed[:_SHAPES])]
        if len(listed) > _SHAPES:
            lines.append(f"    and {len(listed) - _SHAPES} shapes more")
    return ["attention", *lines, ""] if lines else []


def _roofline(program: Program, plan: Estimate, hardware: Hardware) -> list[str]:
    node = f"nodes of {hardware.node}" if hardware.node else "one slice"
    needed, usable = _bytes(plan.needed), _bytes(plan.usable)
    of_memory = f"({100 * USABLE:.0f} % of the memory)"
    share = f"{100 * plan.needed / plan.usable:.0f} %"
    return [
        f"on {hardware.name}: {hardware.tflops:.0f} TFLOP/s of 16-bit and "
        f"{hardware.tflops_32:.0f} of 32-bit operands, {_bytes(hardware.memory)} at "
        f"{_bytes(hardware.bandwidth)}/s, {_bytes(hardware.link)}/s one way within "
        f"{node}, {_bytes(hardware.network)}/s beyond",
        f"  ({hardware.source})",
        f"  products   {_seconds(plan.compute)}",
        f"  memory     {_seconds(plan.memory)}",
        f"  messages   {_seconds(plan.link)} within a node, "
        f"{_seconds(plan.network)} beyond",
        f"  a step     {_seconds(plan.step)} at best ({plan.bound} alone), "
        f"{_seconds(plan.step_unhidden)} where no message hides; "
        f"MFU {100 * plan.mfu:.0f} %",
        "",
        f"fits: {needed} of {usable} {of_memory}, {share}"
        if plan.fits
        else f"DOES NOT FIT: {needed} where {usable} are {of_memory}",
        *(f"  - {line}" for line in advice(program, plan)),
    ]


def _run(numbers: dict[str, float]) -> list[str]:
    if not numbers:
        return []
    n = numbers
    epochs = f", {n['epochs']:.3g} epochs" if "epochs" in n else ""
    return [
        "",
        f"the run: {n['steps']:,} steps, {n['rows']:,} rows{epochs}",
        f"  hours          {n['hours']:,.3g} at best, {n['hours_unhidden']:,.3g} where "
        "no message hides",
        f"  device-hours   {n['device_hours']:,.0f} to "
        f"{n['device_hours_unhidden']:,.0f}",
        f"  checkpoints    {n['checkpoints']:,} of {_bytes(n['checkpoint_bytes'])}, "
        f"{_seconds(n['checkpoint_seconds'])} each at {_bytes(STORAGE)}/s a host",
        f"  hosts          {n['hosts']:,}",
        f"  a host reads   {n['host_rows_per_second']:,.0f} rows/s, "
        f"{_bytes(n['host_bytes_per_second'])}/s once they are decoded",
    ]


def _gathered(rows: list[tree.Row]) -> list[tree.Row]:
    """Rows by the first two parts of their paths."""
    groups: dict[tuple[str, str], list[tree.Row]] = {}
    for row in rows:
        place = "/".join(row.path.split("/")[:2])
        groups.setdefault((place, row.dtype), []).append(row)
    gathered = []
    for (place, dtype), many in groups.items():
        size, total = sum(r.size for r in many), sum(r.bytes for r in many)
        name = f"{place}/* ({len(many)})"
        one = many[0] if len(many) == 1 else tree.Row(name, (), dtype, size, total)
        gathered.append(one)
    return gathered


def _bytes(n: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"


def _seconds(s: float) -> str:
    return f"{s:.3g} s" if s >= 1 else f"{1e3 * s:.3g} ms"
