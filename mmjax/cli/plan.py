"""Says what a run will need before anyone pays for it, on this machine's CPU.

The training step is compiled over as many virtual devices as the mesh has; no array is
made and no data are read. Printed: parameters, operations, memory, messages, the time
of a step at best on a make of devices, and whether it fits.
"""

import argparse
import json
import math
import sys

from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax plan --config configs/prior.py:dalle_12b --mesh data=16,fsdp=16
  mmjax plan --config configs/clip.py:vit_l14 --mesh data=256 --hardware v5p --json
  mmjax plan --config configs/clip.py:vit_b32 --devices 4 --hardware rtx4090 \\
      --config.batch_size=256 --records 400000000
  mmjax plan --config configs/clip.py:vit_l14 --mesh data=32,fsdp=8 \\
      --config.task.loss_impl=ring --config.batch_size=65536
"""
_AXES = ("data", "fsdp", "tensor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a config and its preset, as for mmjax train, such as clip:vit_l14; a file "
    text += "of your own is run, as Python: give none that you do not trust"
    add("--config", required=True, metavar="NAME:PRESET", help=text)
    text = "devices along each axis; an axis left out has one. Without it some are "
    text += "compiled, and the fastest that fits is planned"
    add("--mesh", metavar="data=N,fsdp=N,tensor=N", help=text)
    text = "how many, where there is no --mesh (default: a node)"
    add("--devices", type=int, metavar="N", help=text)
    text = "h200, h100, a100, rtx4090, rtx3090, v5e, v5p"
    add("--hardware", default="h100", metavar="NAME", help=text)
    add("--records", type=int, default=0, metavar="N", help="of an epoch")
    add("--json", action="store_true", help="print flat JSON")
    add("--full", action="store_true", help="list every parameter")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    from mmjax.planning import hardware
    from mmjax.train import config

    device = hardware.find(args.hardware)
    if args.mesh and args.devices:
        raise UserError("--devices is for a search, and --mesh says it all: give one")
    sizes = mesh_of(args.mesh) if args.mesh else {}
    devices = math.prod(sizes.values()) if sizes else args.devices or device.host
    if devices < 1:
        raise UserError(f"--devices {devices}: use 1 or more")
    mesh = [f"--config.parallel.mesh.{axis}={n}" for axis, n in sizes.items()]
    cfg = config.load(args.config, [*args.overrides, *mesh])
    runtime.configure(devices=devices)
    from mmjax.planning import estimate, program, report, search

    if sizes:
        step = program.build(cfg, device.platform)
        plan = estimate.estimate(step, device)
    else:
        say = lambda line: print(f"compiling {line}", file=sys.stderr)  # noqa: E731
        tried = search.search(cfg, device, devices, say=say)
        step, plan = tried[0].program, tried[0].plan
        if not args.json:
            print(report.meshes(tried), end="\n\n")
    needs = step, plan, device, args.records
    if args.json:
        print(json.dumps(report.flat(*needs), indent=1))
    else:
        print(report.text(*needs, full=args.full))
    return 0


def mesh_of(text: str) -> dict[str, int]:
    """The sizes of `data=16,fsdp=16`.

    Raises:
      UserError: another axis, one given twice, or a size that is no positive number.
    """
    sizes: dict[str, int] = {}
    for part in map(str.strip, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in _AXES or axis in sizes or not size.isdecimal() or not int(size):
            raise UserError(
                f"--mesh {text}: {part!r} is not AXIS=N with an axis of "
                f"{', '.join(_AXES)}, each at most once, and N from 1 on"
            )
        sizes[axis] = int(size)
    return dict.fromkeys(_AXES, 1) | sizes
