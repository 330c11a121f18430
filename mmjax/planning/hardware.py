"""What a device can do, from its makers' data sheets. Rates are peaks of dense work."""

import dataclasses

from mmjax import schema
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One device, and its share of the links to others.

    tflops: 16-bit products, 1e12 operations a second. tflops_32: of float32 operands as
      JAX computes them by default (TF32 on GPUs, one pass of bfloat16 on TPUs).
    memory: bytes. bandwidth: bytes a second of it.
    node: devices that the fast links join; 0 is all of a slice.
    link: bytes a second, one way, to devices of the node; network: to others.
    source: where the numbers are from.
    """

    name: str
    tflops: float
    tflops_32: float
    memory: float
    bandwidth: float
    node: int
    link: float
    network: float
    source: str


def _gpu(
    name: str, tflops: float, memory: float, bandwidth: float, link: float, network: int
) -> Hardware:
    source = f"NVIDIA's data sheet of the {name}; eight to a node, a NIC of {network} "
    source += "Gbit/s each, as in its DGX"
    return Hardware(
        name,
        tflops=tflops,
        tflops_32=tflops / 2,
        memory=memory,
        bandwidth=bandwidth,
        node=8,
        link=link,
        network=network / 8 * 1e9,
        source=source,
    )


def _tpu(
    name: str, tflops: float, memory: float, bandwidth: float, link: float
) -> Hardware:
    return Hardware(
        name,
        tflops=tflops,
        tflops_32=tflops,
        memory=memory,
        bandwidth=bandwidth,
        node=0,
        link=link,
        network=link,
        source=f"Google Cloud's page of the {name}; half of its two-way bandwidth "
        "between chips, all links together",
    )


HARDWARE = {
    "h200": _gpu("H200 SXM", 989.4, 141e9, 4.8e12, 450e9, 400),
    "h100": _gpu("H100 SXM", 989.4, 80e9, 3.35e12, 450e9, 400),
    "a100": _gpu("A100 SXM 80 GB", 312.0, 80e9, 2.039e12, 300e9, 200),
    "v5e": _tpu("TPU v5e", 197.0, 16e9, 819e9, 200e9),
    "v5p": _tpu("TPU v5p", 459.0, 95 * 2**30, 2.765e12, 600e9),
}


def find(name: str) -> Hardware:
    """The device called `name`; UserError with the nearest name if there is none."""
    if name not in HARDWARE:
        raise UserError(f"--hardware {name}{schema.suggest(name, HARDWARE)}")
    return HARDWARE[name]
