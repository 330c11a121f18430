"""Answers a claim of experiments/ by its runs: agrees, disagrees or undecided.

It trains what is missing, each arm with every seed, evaluates, and writes results.json,
a table, a figure and a page into the workdir, and results.json, the figure and the
README's results into the claim's folder (not of --scale tiny, which is for tests). Run
the same command again to go on wherever it was stopped or killed.
"""

import argparse
import pathlib

from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax reproduce --list
  mmjax reproduce clip_text_towers --scale tiny
  mmjax reproduce clip_text_towers --scale small --jobs 2
  mmjax reproduce clip_text_towers --scale small --print    # a line a job
  mmjax reproduce --all --scale small
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a name in experiments/, or a file, which is run, as Python: give none that "
    add("claim", nargs="?", metavar="CLAIM", help=text + "you do not trust")
    text = "seconds, two cores (the default), or a pod"
    add("--scale", choices=("tiny", "small", "paper"), default="small", help=text)
    add("--workdir", type=pathlib.Path, metavar="DIR", help="of all its runs")
    text = "of results.json and README (default: the claim's folder)"
    add("--out", type=pathlib.Path, metavar="PATH", help=text + "; of --list, a file")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once")
    add("--print", action="store_true", help="print the commands and run none")
    add("--list", action="store_true", help="print every claim and its verdict")
    text = "every claim that has the scale and needs nothing made by hand"
    add("--all", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    from mmjax.claims import spec
    from mmjax.train.config import HOME

    if sum((bool(args.claim), args.list, args.all)) != 1:
        raise UserError("give a CLAIM, --list or --all")
    root = spec.folder(HOME)
    if args.list:
        return _list(root, args.out)
    runtime.configure()
    if args.claim:
        return _one(spec.find(args.claim, root), args)
    if args.workdir or args.out:
        raise UserError("--all: every claim has a --workdir and an --out of its own")
    return _all(root, args)


def _list(root: pathlib.Path, out: pathlib.Path | None) -> int:
    from mmjax.claims import results, spec
    from mmjax.suite import report, runner

    read = {name: spec.read(spec.find(name, root)) for name in spec.names(root)}
    text = "\n".join(report.table(results.claims(root, read)))
    if out is None:
        print(text)
        return 0
    made = "Made by `mmjax reproduce --list --out FILE`; docs/reproduce.md says how."
    runner.write(out, f"# Claims and what was found\n\n{made}\n\n{text}\n")
    return 0


def _all(root: pathlib.Path, args: argparse.Namespace) -> int:
    from mmjax.claims import spec, work

    failed = []
    for name in spec.names(root):
        path = spec.find(name, root)
        experiment = spec.read(path)
        if args.scale not in experiment.scales or experiment.before:
            why = (
                "asks for commands by hand" if experiment.before else "lacks the scale"
            )
            work.note(f"{name}: left out, it {why}")
            continue
        work.note(f"{name}: {experiment.claim}")
        try:
            code = _one(path, args)
        except UserError as error:  # the other claims go on
            work.note(f"{name}: {error}")
            failed.append(name)
        else:
            if code:
                return code
    if failed:
        raise UserError(f"{len(failed)} claims were not finished: {', '.join(failed)}")
    return 0


def _one(path: pathlib.Path, args: argparse.Namespace) -> int:
    from mmjax.claims import engine, results, spec, work
    from mmjax.suite import report

    experiment, name = spec.read(path), path.parent.name
    scale = experiment.at(args.scale)
    if not experiment.points(scale):
        raise UserError(f"{path}: no arm is left at --scale {args.scale}")
    folder = args.workdir or pathlib.Path("runs", "claims", f"{name}-{args.scale}")
    for command in experiment.before:
        work.note(f"before this, run: {command}")
    try:
        result = engine.run(
            experiment,
            scale,
            folder,
            root=str(path.parent),
            title=name,
            by="mmjax reproduce",
            name=args.scale,
            jobs=args.jobs,
            only_print=args.print,
        )
    except work.Stopped as stop:
        work.note(f"{stop}; run the same command to go on")
        return stop.code
    if args.print:
        return 0
    out = args.out or (path.parent if args.scale != "tiny" else None)
    if out is not None:
        results.publish(result, out, f"mmjax reproduce {name} --scale {args.scale}")
    lines = [*report.table(results.arms(result)), ""]
    lines += [*report.table(results.checks(result)), ""] if result["checks"] else []
    print("\n".join([*lines, f"{name}: {result['verdict']}", f"results: {folder}"]))
    return 0
