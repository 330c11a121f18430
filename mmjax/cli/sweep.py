"""Trains a config at every point of a grid with several seeds.

Runs, results.json, a table, a figure and a page lie in --workdir. Run the same command
again to go on; points and seeds may be added to a sweep, and nothing else be changed.
`--config.KEY=VALUE` is given to all runs.
"""

import argparse
import pathlib

from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax sweep --config clip:tiny --grid optim.lr=1e-3,3e-3 --seeds 2 \\
      --workdir runs/rates
  mmjax sweep --config clip:shapes --grid optim.lr=1e-3,3e-3 \\
      --grid batch_size=128,256 --seeds 3 --workdir runs/sizes --print
  mmjax compare runs/rates
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a config of mmjax and its preset, or a file of your own, which is run"
    add("--config", required=True, metavar="NAME:PRESET", help=text)
    text = "a config key and its values; may be given again, for every combination"
    add("--grid", action="append", default=[], metavar="KEY=A,B", help=text)
    add("--seeds", type=int, default=3, metavar="N", help="0 to N - 1 (default: 3)")
    add("--workdir", required=True, type=pathlib.Path, metavar="DIR")
    text = "EVALUATOR/NUMBER, a column of the table; may be given again"
    add("--metric", action="append", default=[], metavar="NAME", help=text)
    add("--jobs", type=int, default=1, metavar="N", help="runs at once")
    add("--print", action="store_true", help="print the commands and run none")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.claims import engine, plan, results, spec, work
    from mmjax.suite import report

    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give 1 or more")
    pairs = (text.removeprefix("--config.").partition("=") for text in args.overrides)
    experiment = spec.Experiment(
        claim="",
        source="",
        config=args.config,
        grid=plan.grid(args.grid),
        overrides={key: value for key, _, value in pairs},
        metrics=tuple(args.metric),
    )
    for key in experiment.grid.keys() & {"seed", *experiment.overrides}:
        raise UserError(f"--grid {key}: it is given by --seeds or --config, too")
    scale = spec.Scale(seeds=args.seeds)
    try:
        result = engine.run(
            experiment,
            scale,
            args.workdir,
            title=f"Sweep of {args.config}",
            by="mmjax sweep",
            jobs=args.jobs,
            only_print=args.print,
        )
    except work.Stopped as stop:
        work.note(f"{stop}; run the same command to go on")
        return stop.code
    if result:
        print("\n".join(report.table(results.arms(result))))
        print(f"results: {args.workdir}")
    return 0
