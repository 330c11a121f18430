"""How long a step takes at best: a roofline of products, memory and messages.

Each of the three has the device to itself and runs at its maker's peak; what takes
longest is the step, if all else hides behind it (Williams et al. 2009). Real steps take
longer: kernels reach 50 to 80 % of the peaks, and messages hide only in part.
"""

import dataclasses

from mmjax.planning.hardware import Hardware
from mmjax.planning.hlo import Collective
from mmjax.planning.program import Program

# Of a device's memory; the rest is the runtime's, fragments and communication buffers.
USABLE = 0.92
_HALF = ("bfloat16", "float16", "float8")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step's parts, each on its own, and bytes of a device."""

    compute: float  # products, recomputed ones too
    memory: float  # what products read and write, and the optimizer
    link: float  # messages between devices of a node
    network: float  # other messages
    ideal: float  # the model's operations, none recomputed, at the device's peak
    needed: float  # bytes of a device
    usable: float

    @property
    def step(self) -> float:
        """The longest part: all others hide behind it."""
        return max(self.compute, self.memory, self.link + self.network)

    @property
    def step_unhidden(self) -> float:
        """No message hides behind products."""
        return max(self.compute, self.memory) + self.link + self.network

    @property
    def mfu(self) -> float:
        """The model's operations over what the peak allows in `step`."""
        return self.ideal / self.step

    @property
    def bound(self) -> str:
        """Which part is the longest."""
        messages = self.link + self.network
        parts = {"products": self.compute, "memory": self.memory, "messages": messages}
        return max(parts, key=parts.get)

    @property
    def fits(self) -> bool:
        return self.needed <= self.usable


def estimate(program: Program, hardware: Hardware) -> Estimate:
    """The roofline of a program on a make of devices."""
    n, flops, sizes = program.devices, program.flops, program.sizes
    compute = link = network = 0.0
    for dtype, operations in flops.by_dtype.items():
        rate = hardware.tflops if dtype.startswith(_HALF) else hardware.tflops_32
        compute += operations / n / (rate * 1e12)
    # Rows are shared out, weights are not: each device reads all that its tensor share
    # holds, beyond its n-th share of the products', forwards, for the gradient and
    # where it is recomputed.
    half = any(dtype.startswith(_HALF) for dtype in flops.by_dtype)
    weights = (3 if flops.again else 2) * program.params * (2 if half else 4)
    weights = weights * (1 / program.mesh["tensor"] - 1 / n)
    # The optimizer reads and writes all that it keeps, and reads the gradients.
    kept = sizes["params"] + sizes["optimizer"] + sizes["average"]
    moved = flops.moved / n + weights + (2 * kept + sizes["params"])
    for one in program.collectives:
        if within(one, hardware.node):
            link += one.sent / hardware.link
        else:
            network += one.sent / hardware.network
    return Estimate(
        compute=compute,
        memory=moved / hardware.bandwidth,
        link=link,
        network=network,
        ideal=flops.model / n / (hardware.tflops * 1e12),
        needed=program.bytes_per_device,
        usable=USABLE * hardware.memory,
    )


def within(one: Collective, node: int) -> bool:
    """Whether a collective stays inside a node; 0 is a node of all devices."""
    return not node or len({device // node for device in one.group}) == 1


def advice(program: Program, plan: Estimate) -> list[str]:
    """What to change where a step does not fit, the most effective first."""
    if plan.fits:
        return []
    sizes, mesh = program.sizes, program.mesh
    data, fsdp, rows = mesh["data"], mesh["fsdp"], mesh["data"] * mesh["fsdp"]

    def state(fsdp: int) -> float:
        """Bytes of the state where it is split over so many."""
        kept = ("params", "frozen", "optimizer", "average")
        split = sum(sizes[k] for k in kept) / (fsdp / mesh["fsdp"])
        return split + sizes["other"] + sizes["batch"]

    lines = []
    whole = program.bytes_per_device - sizes["activations"]
    if whole > 0.5 * plan.usable and data > 1:
        while rows % (2 * fsdp) == 0 and state(fsdp) > 0.5 * plan.usable:
            fsdp *= 2
        tensor = f",tensor={mesh['tensor']}" if mesh["tensor"] > 1 else ""
        lines.append(
            f"split the state further: --mesh data={rows // fsdp},fsdp={fsdp}{tensor} "
            f"makes its {whole / 1e9:.1f} GB about {state(fsdp) / 1e9:.1f} GB"
        )
    if program.remat not in ("full", ""):
        lines.append("recompute activations: --config.task.remat=full")
    if program.batch_size // rows > 1:
        lines.append(
            f"embed the {program.batch_size // rows} rows of a device in slices: "
            "--config.optim.accum=2 or more (the same gradients)"
        )
    lines.append("take more devices, or devices with more memory (--hardware)")
    return lines
