"""Runs the evaluators of a trained model's config on one of its checkpoints.

Without --evals all of them run. Numbers come with their 95 % bootstrap interval;
--json prints the cards as well, which say exactly what was measured.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax import cluster, schema
from mmjax.commands.train import add_devices
from mmjax.errors import UserError

EXAMPLE = """examples:
  mmjax eval runs/demo
  mmjax eval runs/demo --evals zero_shot_val --step 1000 --json
  mmjax eval runs/demo --evals zero_shot_val \\
      --source "folder:/photos" --config.evals.zero_shot_val.templates=photo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("--step", type=int, help="a saved step (default: the newest)")
    parser.add_argument("--evals", metavar="A,B", help="names under config.evals")
    parser.add_argument("--source", metavar="SPEC", help="evaluate on other data")
    parser.add_argument("--json", action="store_true", help="print values and cards")
    add_devices(parser)
    cluster.add_arguments(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    with cluster.session(args):
        from mmjax import hosts

        shown = _evaluate(args)
        if hosts.writer():
            print("\n".join(shown))
        return 0


def _evaluate(args: argparse.Namespace) -> list[str]:
    """The lines to print."""
    from mmjax import notebook
    from mmjax import parts as parts_lib

    seen = notebook.load_run(args.workdir, args.step)
    config = _choose(seen.config, args)
    cfg = schema.from_mapping(parts_lib.RunConfig, config, "config")
    parts = dataclasses.replace(seen.parts, config=config, cfg=cfg)
    results = parts_lib.evaluate(parts, seen.state.eval_vars())
    if args.json:
        shown = {
            name: {"step": seen.step, "values": r.values, "card": r.card}
            for name, r in results.items()
        }
        return [json.dumps(shown, indent=1)]
    found = [f"{args.workdir} step {seen.step}"]
    for name, result in results.items():
        found += ["", name, *lines(result.values)]
    return found


def _choose(saved: Any, args: argparse.Namespace) -> Any:
    """The run's config with the overrides, and only the evaluators asked for."""
    from mmjax import config

    for text in args.overrides:
        if not text.startswith(("--config.evals.", "--config.batch_size=")):
            raise UserError(
                f"{text}: mmjax eval takes --config.evals.NAME.KEY=VALUE and "
                "--config.batch_size=N; the rest is the trained model's"
            )
    chosen = config.override(saved, args.overrides)
    names = args.evals.split(",") if args.evals else list(chosen.evals)
    if not names:
        raise UserError(f"the config of {args.workdir} has no evaluators")
    for name in names:
        if name not in chosen.evals:
            hint = schema.suggest(name, chosen.evals)
            raise UserError(f"no evaluator {name!r} in {args.workdir}{hint}")
    with chosen.unlocked():
        chosen.evals = {name: chosen.evals[name] for name in names}
        if args.source:
            for name in names:
                chosen.evals[name].source = args.source
    return chosen


def lines(values: Mapping[str, float]) -> list[str]:
    """One line a number, its `_lo` and `_hi` beside it."""
    width = max(map(len, values), default=0)
    found = []
    for name, value in values.items():
        if name.endswith(("_lo", "_hi")):
            continue
        text = f"  {name:<{width}}  {value:<8.4g}"
        if f"{name}_lo" in values:
            low, high = values[f"{name}_lo"], values[f"{name}_hi"]
            text += f"  95 % interval {low:.4g} to {high:.4g}"
        found.append(text.rstrip())
    return found
