"""Runs the evaluators of a trained model's config, or a suite, on a checkpoint.

Of the config all evaluators run, or those of --evals. Numbers come with their 95 %
bootstrap interval; --json prints the cards as well, which say exactly what was
measured.

A suite is a config that lists data sets and protocols (configs/suites.py). Its results
are kept in WORKDIR/evals/SUITE: every card, a summary as JSON, markdown and HTML, and
figures. What is there already is not run again. `mmjax eval compare FOLDER` writes the
tables of such a folder anew, beside published ones.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from mmjax import schema
from mmjax.cli.train import add_devices, lines
from mmjax.errors import UserError
from mmjax.parallel import distributed

EXAMPLE = """examples:
  mmjax eval runs/demo/clip
  mmjax eval runs/demo/clip --evals val,unseen --step 1100 --json
  mmjax eval runs/demo/clip --evals val \\
      --source "folder:/photos?label=parent" --config.evals.val.templates=photo
  mmjax eval configs/suites.py:bundle runs/flickr8k
  mmjax eval configs/suites.py:bundle runs/flickr8k/checkpoints/200
  mmjax eval compare runs/flickr8k/evals/bundle --reference benchmark.csv \\
      --models "RN50 openai,ViT-B-32 openai"
"""
_OF_SUITES = ("out", "reference", "models")
_OF_CONFIGS = ("evals", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a workdir, or one of its checkpoints; before it, a suite's config, a file "
    text += "that is run, as Python: give none that you do not trust"
    add("places", nargs="+", metavar="[SUITE] WORKDIR", help=text)
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--evals", metavar="A,B", help="names under config.evals")
    add("--source", metavar="SPEC", help="evaluate on other data")
    add("--out", type=pathlib.Path, help="folder of a suite's results")
    text = "published results to show a suite's beside; may be given again"
    add("--reference", action="append", default=[], metavar="FILE.csv", help=text)
    add("--models", metavar="A,B", help="which of the published models")
    add("--json", action="store_true", help="print values and cards")
    add_devices(parser)
    distributed.add_arguments(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    *suite, place = args.places
    place = pathlib.Path(place).expanduser()
    if len(suite) > 1:
        raise UserError(f"{' '.join(args.places)}: give [SUITE] WORKDIR")
    for name in _OF_CONFIGS if suite else _OF_SUITES:
        if getattr(args, name):
            kind = "a suite says itself what it runs" if suite else "it is for suites"
            raise UserError(f"--{name}: {kind}; see mmjax eval --help")
    if suite == ["compare"]:
        print(_compare(place, args)[0])
        return 0
    with distributed.session(args):
        from mmjax.parallel import processes

        args.workdir, args.step = _checkpoint(place, args.step)
        shown = _suite(suite[0], args) if suite else _evaluate(args)
        if processes.writer():
            print("\n".join(shown))
        return 0


def _checkpoint(
    place: pathlib.Path, step: int | None
) -> tuple[pathlib.Path, int | None]:
    """(workdir, step) of a workdir, or of a step's folder in one."""
    from mmjax.train import checkpoint

    if place.parent.name != checkpoint.FOLDER or not place.name.isdigit():
        return place, step
    if step not in (None, int(place.name)):
        raise UserError(f"{place} is step {place.name}, and --step says {step}")
    return place.parent.parent, int(place.name)


# -- suites --------------------------------------------------------------------
def _suite(spec: str, args: argparse.Namespace) -> list[str]:
    """Runs a suite and returns the lines to print."""
    from mmjax.inference import load
    from mmjax.parallel import processes
    from mmjax.suite import cells as cells_lib
    from mmjax.suite import runner
    from mmjax.train import config as config_lib

    name = spec.partition(":")[2] or pathlib.Path(spec).stem
    suite = config_lib.load(spec, args.overrides, kind=cells_lib.Suite)
    cells = cells_lib.cells(suite)
    write = _writer(args)
    out = args.out or args.workdir / "evals" / name
    results = runner.run(cells, load.load_run(args.workdir, args.step), out)
    return write(out, name, *results) if processes.writer() else []


def _compare(folder: pathlib.Path, args: argparse.Namespace) -> list[str]:
    """Writes a results folder's tables anew and returns the lines to print."""
    from mmjax.suite import runner

    path = folder / "summary.json"
    if not args.reference:
        raise UserError("mmjax eval compare needs --reference FILE.csv")
    if not path.is_file():
        raise UserError(f"{folder} holds no summary.json: run a suite first")
    saved = schema.read_json(path, fix="run the suite again")
    outcomes = [runner.Outcome.of(entry) for entry in saved["cells"]]
    about = saved["suite"], saved["model"]
    return _writer(args)(folder, *about, outcomes, part="published")


def _writer(args: argparse.Namespace) -> Callable[..., list[str]]:
    """A function that writes results beside the published ones, which are read now."""
    from mmjax.suite import published, report

    references = [published.read(path) for path in args.reference]
    models = [name.strip() for name in (args.models or "").split(",") if name.strip()]

    def write(folder: pathlib.Path, *results: Any, part: str = "") -> list[str]:
        summary = report.write(folder, *results, references, models)
        if args.json:
            return [json.dumps(summary[part] if part else summary, indent=1)]
        text = (folder / "summary.md").read_text(encoding="utf-8")
        return [text, f"results: {folder}"]

    return write


# -- a run's own evaluators ----------------------------------------------------
def _evaluate(args: argparse.Namespace) -> list[str]:
    """The lines to print."""
    from mmjax.inference import load
    from mmjax.train import config as config_lib
    from mmjax.train import evaluate

    run = load.load_run(args.workdir, args.step)
    config = _choose(run.config, args)
    cfg = schema.from_mapping(config_lib.RunConfig, config, "config")
    parts = dataclasses.replace(run.parts, config=config, cfg=cfg)
    results = evaluate.evaluate(parts, run.state.eval_vars())
    if args.json:
        cards = {
            name: {"step": run.step, "values": r.values, "card": r.card}
            for name, r in results.items()
        }
        return [json.dumps(cards, indent=1)]
    shown = [f"{args.workdir} step {run.step}"]
    for name, result in results.items():
        shown += ["", name, *lines(result.values)]
    return shown


def _choose(saved: Any, args: argparse.Namespace) -> Any:
    """The run's config with the overrides, and only the evaluators asked for."""
    from mmjax.train import evaluate

    for text in args.overrides:
        if not text.startswith(("--config.evals.", "--config.batch_size=")):
            raise UserError(
                f"{text}: mmjax eval takes --config.evals.NAME.KEY=VALUE and "
                "--config.batch_size=N; the rest is the trained model's"
            )
    names = args.evals.split(",") if args.evals else None
    given = {"names": names, "source": args.source, "overrides": args.overrides}
    return evaluate.choose(saved, args.workdir, **given)
