"""Shows the parameter table, config and last metrics of a run.

Config lines are as a shell and `mmjax train` take them.
"""

import argparse
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax inspect runs/demo/clip
  mmjax inspect runs/demo/clip --step 1100 | less
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("--step", type=int, help="a saved step (default: the newest)")


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.inference import load

    seen = load.load_run(args.workdir, args.step)
    print(f"{args.workdir}  task {seen.config.task.name}  step {seen.step}\n")
    print(seen.table())
    print("\nconfig")
    print("\n".join(config_lines(seen.config)))
    print("\nlast metrics")
    for name, value in sorted(seen.last_metrics().items()):
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        print(f"  {name} = {text}")
    return 0


def config_lines(config: Mapping[str, Any], prefix: str = "--config") -> list[str]:
    """Every key of a config as the override that sets it, quoted for a shell."""
    lines = []
    for key in config:
        value, name = config[key], f"{prefix}.{key}"
        if hasattr(value, "keys"):
            lines += config_lines(value, name)
        else:
            shown = value if isinstance(value, str) else repr(value)
            lines.append("  " + shlex.quote(f"{name}={shown}"))
    return lines
