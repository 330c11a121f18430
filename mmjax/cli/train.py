"""Trains a config in a workdir. Run the same command again to go on where it stopped.

Every key of the config can be given on the command line: --config.KEY=VALUE, as
`mmjax inspect WORKDIR` prints them. `--config.graft.params=RUN` starts from the weights
of another run, `--config.graft.params.image=RUN#image` from a part of them.
"""

import argparse
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from mmjax import cli
from mmjax.errors import UserError
from mmjax.parallel import distributed, runtime

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

_SHOWN = 6  # numbers of an evaluator
# (the predict function that a command needs, its verb, the command)
_NEXT = (
    ("embed_text", "zeroshot", 'zeroshot {run} PHOTO.jpg --labels "a dog,a cat"'),
    ("sample", "sample", 'sample {run} "what to draw" -k 8'),
    ("caption", "caption", "caption {run} PHOTO.jpg"),
    ("encode", "data", "data encode {run} SOURCE --out TOKENS"),
    ("", "report", "report {run}"),
    ("", "eval", "eval {run}"),
    ("", "inspect", "inspect {run}"),
)


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
            values = loop.run(cfg, args.workdir, profile=profile)
            if processes.writer():
                print("\n".join(closing(args.workdir, cfg, values)))
        except loop.Interrupted as e:
            if processes.writer():
                print(f"mmjax: {e}; run the same command to go on", file=sys.stderr)
            return e.status()
        return 0


def closing(
    workdir: pathlib.Path, config: Any, values: Mapping[str, float]
) -> list[str]:
    """Lines on the results of a run that is done, and commands to go on with."""
    from mmjax.tasks import base

    shown = []
    for name in dict.fromkeys(key.partition("/")[0] for key in values):
        own = {
            k.partition("/")[2]: v
            for k, v in values.items()
            if k.startswith(f"{name}/")
        }
        shown += [name, *lines(own)[:_SHOWN]]
    shown += [f"results  {workdir}/cards", f"metrics  {workdir}/metrics.jsonl", ""]
    can = base.build(config.task).predict()
    mmjax, run = runtime.command(), shlex.quote(str(workdir))
    return [*shown, "go on with"] + [
        f"{mmjax} {line.format(run=run)}"
        for need, verb, line in _NEXT
        if (not need or need in can) and verb in cli.verbs()
    ]


def lines(values: Mapping[str, float]) -> list[str]:
    """One line a number, its `_lo` and `_hi` beside it."""
    width = max(map(len, values), default=0)
    shown = []
    for name, value in values.items():
        if not name.endswith(("_lo", "_hi")):
            text = f"  {name:<{width}}  {value:<8.4g}"
            if f"{name}_lo" in values:
                low, high = values[f"{name}_lo"], values[f"{name}_hi"]
                text += f"  95 % interval {low:.4g} to {high:.4g}"
            shown.append(text.rstrip())
    return shown
