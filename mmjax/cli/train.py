"""Trains a config in a workdir. Run the same command again to go on where it stopped.

Every key of the config can be given on the command line: --config.KEY=VALUE, as
`mmjax inspect WORKDIR` prints them. `--config.graft.params=RUN` starts from the weights
of another run, `--config.graft.params.image=RUN#image` from a part of them.
"""

import argparse
import pathlib
import re
import sys

from mmjax.errors import UserError
from mmjax.parallel import distributed

EXAMPLE = """examples:
  mmjax train --config configs/clip.py:shapes --workdir runs/shapes
  mmjax train --config configs/clip.py:shapes --workdir runs/short \\
      --config.steps=500 --config.optim.lr=3e-4
  mmjax train --config configs/clip.py:shapes --workdir runs/slow --profile 10:13
  mmjax train --config configs/clip.py:shapes --workdir runs/mesh --devices 4 \\
      --config.parallel.mesh.data=2 --config.parallel.mesh.fsdp=2
  mmjax train --config configs/clip.py:vit_b32 --workdir /shared/runs/b32 \\
      --coordinator 10.0.0.1:8476 --processes 2 --process 0    # and 1, elsewhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a config of mmjax and its preset, such as clip:shapes, or a file of "
    text += "your own, my/config.py:PRESET. A file is run, as Python: give none that "
    text += "you do not trust"
    add("--config", required=True, metavar="NAME:PRESET", help=text)
    text = "where checkpoints, metrics and result cards go"
    add("--workdir", required=True, type=pathlib.Path, metavar="DIR", help=text)
    text = "trace these steps into DIR/profile, for TensorBoard or Perfetto"
    add("--profile", metavar="FIRST:LAST", help=text)
    add_devices(parser)
    distributed.add_arguments(parser)
    parser.set_defaults(overrides=[])


def add_devices(parser: argparse.ArgumentParser) -> None:
    text = "show N virtual CPU devices, to try a mesh without accelerators"
    parser.add_argument("--devices", type=int, default=0, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    steps = re.fullmatch(r"(\d+):(\d+)", args.profile or "")
    if args.profile is not None and not steps:
        raise UserError(
            f"--profile {args.profile}: give the first and the last step, as in "
            "--profile 10:13"
        )
    profile = (int(steps[1]), int(steps[2])) if steps else None
    with distributed.session(args):
        from mmjax.parallel import processes
        from mmjax.train import config, loop

        try:
            cfg = config.load(args.config, args.overrides)
            loop.run(cfg, args.workdir, profile=profile)
        except loop.Interrupted as e:
            if processes.writer():
                print(f"mmjax: {e}; run the same command to go on", file=sys.stderr)
            return e.status()
        return 0
