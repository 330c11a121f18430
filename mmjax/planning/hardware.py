"""What a device can do, from its makers' data sheets. Rates are peaks of dense work."""

import dataclasses

from mmjax import schema
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One device, and its share of the links to others."""

    name: str
    tflops: float  # 16-bit products, 1e12 operations a second
    tflops_32: float  # of float32 by default: TF32 on GPUs, bfloat16 on TPUs
    memory: float  # bytes
    bandwidth: float  # bytes a second of the memory
    node: int  # devices that the fast links join; 0 is all of a slice
    link: float  # bytes a second, one way, to devices of the node
    network: float  # the same to others
    source: str  # where the numbers are from

    @property
    def platform(self) -> str:
        """What programs are lowered for."""
        return "cuda" if self.node else "tpu"

    @property
    def host(self) -> int:
        """Devices of a host: those of a node, or four of a slice of TPUs."""
        return self.node or 4


def _gpu(name: str, tflops: float, *rates: float, network: int) -> Hardware:
    """rates: memory, bandwidth and link; network: Gbit/s."""
    memory, bandwidth, link = rates
    source = f"NVIDIA's data sheet of the {name}; eight to a node, a NIC of {network} "
    source += "Gbit/s each, as in its DGX"
    sides = (link, network / 8 * 1e9, source)
    return Hardware(name, tflops, tflops / 2, memory, bandwidth, 8, *sides)


def _tpu(name: str, tflops: float, *rates: float) -> Hardware:
    memory, bandwidth, link = rates
    source = f"Google Cloud's page of the {name}; half of its two-way bandwidth "
    source += "between chips, all links together"
    return Hardware(name, tflops, tflops, memory, bandwidth, 0, link, link, source)


def _consumer(name: str, tflops: float, bandwidth: float) -> Hardware:
    source = (
        f"NVIDIA's white paper of the {name} (sums in float32); assumed: four to a "
    )
    source += "machine over PCIe 4.0 x16, and 10 Gbit/s Ethernet between machines"
    sides = (31.5e9, 10 / 8 * 1e9 / 4, source)
    return Hardware(name, tflops, tflops / 2, 24 * 2**30, bandwidth, 4, *sides)


HARDWARE = {
    "h200": _gpu("H200 SXM", 989.4, 141e9, 4.8e12, 450e9, network=400),
    "h100": _gpu("H100 SXM", 989.4, 80e9, 3.35e12, 450e9, network=400),
    "a100": _gpu("A100 SXM 80 GB", 312.0, 80e9, 2.039e12, 300e9, network=200),
    "rtx4090": _consumer("GeForce RTX 4090", 165.2, 1.008e12),
    "rtx3090": _consumer("GeForce RTX 3090", 71.0, 936e9),
    "v5e": _tpu("TPU v5e", 197.0, 16e9, 819e9, 200e9),
    "v5p": _tpu("TPU v5p", 459.0, 95 * 2**30, 2.765e12, 600e9),
}


def find(name: str) -> Hardware:
    """The device called `name`; UserError with the nearest name if there is none."""
    if name not in HARDWARE:
        raise UserError(f"--hardware {name}{schema.suggest(name, HARDWARE)}")
    return HARDWARE[name]
