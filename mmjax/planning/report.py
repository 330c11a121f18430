"""A plan as text, and as flat JSON."""

from typing import Any

from mmjax import tree
from mmjax.planning import hlo
from mmjax.planning.estimate import USABLE, Estimate, advice
from mmjax.planning.hardware import Hardware
from mmjax.planning.program import Program

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


def flat(program: Program, made: Estimate, hardware: Hardware) -> dict[str, Any]:
    """The plan's numbers: bytes, seconds, operations; shares are of one."""
    sent = hlo.by_kind(program.collectives)
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
        "step_seconds": made.step,
        "step_seconds_unhidden": made.step_unhidden,
        "compute_seconds": made.compute,
        "memory_seconds": made.memory,
        "link_seconds": made.link,
        "network_seconds": made.network,
        "mfu": made.mfu,
        "fits": made.fits,
    }


def text(
    program: Program, made: Estimate, hardware: Hardware, *, full: bool = False
) -> str:
    """The plan for people. full: every parameter has a line."""
    rows = program.rows if full else _gathered(program.rows)
    mesh = ", ".join(f"{axis}={size}" for axis, size in program.mesh.items())
    lines = [
        f"{program.devices} devices ({mesh}), batch {program.batch_size:,}",
        "",
        tree.table(rows),
        "",
        f"parameters       {program.params:,}"
        + (f" and {program.frozen:,} frozen" if program.frozen else ""),
        f"FLOPs a step     {program.flops.model:.4g}, and {program.flops.again:.4g} "
        "recomputed",
        "",
        "bytes on a device",
    ]
    for name, size in program.sizes.items():
        if size:
            lines.append(f"  {_LABELS[name]:<48} {_bytes(size):>10}")
    lines += [f"  {'in all':<48} {_bytes(program.bytes_per_device):>10}", ""]
    lines.append("a device sends in a step")
    for kind, size in sorted(hlo.by_kind(program.collectives).items()):
        lines.append(f"  {kind:<48} {_bytes(size):>10}")
    return "\n".join([*lines, "", *_roofline(program, made, hardware)])


def _roofline(program: Program, made: Estimate, hardware: Hardware) -> list[str]:
    node = f"nodes of {hardware.node}" if hardware.node else "one slice"
    lines = [
        f"on {hardware.name}: {hardware.tflops:.0f} TFLOP/s of 16-bit and "
        f"{hardware.tflops_32:.0f} of 32-bit operands, {_bytes(hardware.memory)} at "
        f"{_bytes(hardware.bandwidth)}/s, {_bytes(hardware.link)}/s one way within "
        f"{node}, {_bytes(hardware.network)}/s beyond",
        f"  ({hardware.source})",
        f"  products   {_seconds(made.compute)}",
        f"  memory     {_seconds(made.memory)}",
        f"  messages   {_seconds(made.link)} within a node, "
        f"{_seconds(made.network)} beyond",
        f"  a step     {_seconds(made.step)} at best ({made.bound} alone), "
        f"{_seconds(made.step_unhidden)} where no message hides; "
        f"MFU {100 * made.mfu:.0f} %",
        "",
    ]
    share = made.needed / made.usable
    if made.fits:
        lines.append(
            f"fits: {_bytes(made.needed)} of {_bytes(made.usable)} "
            f"({100 * USABLE:.0f} % of the memory), {100 * share:.0f} %"
        )
    else:
        lines.append(
            f"DOES NOT FIT: {_bytes(made.needed)} where {_bytes(made.usable)} are "
            f"({100 * USABLE:.0f} % of the memory)"
        )
        lines += [f"  - {line}" for line in advice(program, made)]
    return lines


def _gathered(rows: list[tree.Row]) -> list[tree.Row]:
    """Rows by the first two parts of their paths."""
    found: dict[tuple[str, str], list[tree.Row]] = {}
    for row in rows:
        place = "/".join(row.path.split("/")[:2])
        found.setdefault((place, row.dtype), []).append(row)
    return [
        many[0]
        if len(many) == 1
        else tree.Row(
            f"{place}/* ({len(many)})",
            (),
            dtype,
            sum(r.size for r in many),
            sum(r.bytes for r in many),
        )
        for (place, dtype), many in found.items()
    ]


def _bytes(n: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"


def _seconds(s: float) -> str:
    return f"{s:.3g} s" if s >= 1 else f"{1e3 * s:.3g} ms"
