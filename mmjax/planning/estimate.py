"""How long a step takes at best: a roofline of products, memory and messages.

Each of the three has the device to itself and runs at its maker's peak; what takes
longest is the step, if all else hides behind it (Williams et al. 2009). Real steps take
longer: kernels reach 50 to 80 % of the peaks, and messages hide only in part.
"""

import dataclasses
from collections.abc import Mapping

from mmjax.planning.hardware import Hardware
from mmjax.planning.hlo import Collective
from mmjax.planning.program import Program

# Of a device's memory; the rest is the runtime's, fragments and communication buffers.
USABLE = 0.92
_HALF = ("bfloat16", "float16", "float8")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step's parts, each on its own.

    compute: products, recomputed ones too. memory: what products read and write, and
    the optimizer. link, network: messages between devices of a node, and others. mfu:
    the model's operations (none recomputed) over what the peak allows in `step`.
    """

    compute: float
    memory: float
    link: float
    network: float
    mfu: float
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
    def bound(self) -> str:
        """Which part is the longest."""
        parts = {
            "products": self.compute,
            "memory": self.memory,
            "messages": self.link + self.network,
        }
        return max(parts, key=parts.get)

    @property
    def fits(self) -> bool:
        return self.needed <= self.usable


def estimate(program: Program, hardware: Hardware) -> Estimate:
    """The roofline of a program on a make of devices."""
    n = program.devices
    seconds = 0.0
    for dtype, operations in program.flops.by_dtype.items():
        rate = hardware.tflops if dtype.startswith(_HALF) else hardware.tflops_32
        seconds += operations / n / (rate * 1e12)
    moved = program.flops.moved / n + _weights(program) + _updates(program.sizes)
    link = network = 0.0
    for one in program.collectives:
        if within(one, hardware.node):
            link += one.sent / hardware.link
        else:
            network += one.sent / hardware.network
    made = Estimate(
        compute=seconds,
        memory=moved / hardware.bandwidth,
        link=link,
        network=network,
        mfu=0.0,
        needed=program.bytes_per_device,
        usable=USABLE * hardware.memory,
    )
    ideal = program.flops.model / n / (hardware.tflops * 1e12)
    return dataclasses.replace(made, mfu=ideal / made.step)


def _weights(program: Program) -> float:
    """Bytes of weights that a device reads beyond its n-th share of the products'.

    Rows are shared out, weights are not: each device reads all that its tensor share
    holds, forwards, for the gradient and where it is recomputed.
    """
    half = any(dtype.startswith(_HALF) for dtype in program.flops.by_dtype)
    passes = 3 if program.flops.again else 2
    whole = passes * program.params * (2 if half else 4)
    return whole * (1 / program.mesh["tensor"] - 1 / program.devices)


def _updates(sizes: Mapping[str, int]) -> float:
    """Bytes of the optimizer: all it keeps, read and written, and the gradients."""
    kept = sizes["params"] + sizes["optimizer"] + sizes["average"]
    return 2 * kept + sizes["params"]


def within(one: Collective, node: int) -> bool:
    """Whether a collective stays inside a node; 0 is a node of all devices."""
    return not node or len({device // node for device in one.group}) == 1


def advice(program: Program, made: Estimate) -> list[str]:
    """What to change where a step does not fit, the most effective first."""
    if made.fits:
        return []
    sizes, mesh = program.sizes, program.mesh
    state = program.bytes_per_device - sizes["activations"]
    found = []
    if state > 0.5 * made.usable and mesh["data"] > 1:
        fsdp = mesh["fsdp"]
        while mesh["data"] * mesh["fsdp"] % (2 * fsdp) == 0 and (
            _state(sizes, fsdp / mesh["fsdp"]) > 0.5 * made.usable
        ):
            fsdp *= 2
        data = mesh["data"] * mesh["fsdp"] // fsdp
        found.append(
            f"split the state further: --mesh data={data},fsdp={fsdp}"
            + (f",tensor={mesh['tensor']}" if mesh["tensor"] > 1 else "")
            + f" makes its {state / 1e9:.1f} GB about "
            f"{_state(sizes, fsdp / mesh['fsdp']) / 1e9:.1f} GB"
        )
    if program.remat not in ("full", ""):
        found.append("recompute activations: --config.task.remat=full")
    rows = program.batch_size // (mesh["data"] * mesh["fsdp"])
    if rows > 1:
        found.append(
            f"embed the {rows} rows of a device in slices: --config.optim.accum=2 or "
            "more (the same gradients)"
        )
    found.append("take more devices, or devices with more memory (--hardware)")
    return found


def _state(sizes: Mapping[str, int], times: float) -> float:
    """Bytes of state where it is split `times` further."""
    kept = ("params", "frozen", "optimizer", "average")
    return sum(sizes[k] for k in kept) / times + sizes["other"] + sizes["batch"]
