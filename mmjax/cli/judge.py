"""Has people compare the images of runs, blind, and reports their votes.

`new` draws and stores the pairs, `serve` shows them in a browser, `report` counts. The
questions are those of Ramesh et al. 2021: which image is more realistic, and which
matches the caption better; five people answer each, and the majority counts.
"""

import argparse
import pathlib
from typing import Any

from mmjax.cli import sample
from mmjax.cli.train import add_devices
from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax judge new runs/study warm=runs/demo/prior cool=runs/demo/prior \\
      --set cool.temperature=0.5 --prompts captions.txt
  mmjax judge serve runs/study                    # needs mmjax[judge]
  mmjax judge serve runs/study --host 0.0.0.0     # prints a link with a token
  mmjax judge report runs/study --min-attention 0.7 \\
      --clip runs/demo/clip --source "shapes:val?size=32&count=2000"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    new = verbs.add_parser(
        "new",
        help="draw the images of two runs or more, and pair them",
        description="Draws an image of each prompt by each run, with one seed, and "
        "stores the pairs, beside traps that tell whether a rater looks: an image "
        "beside a noisy copy of it, or beside an image of another caption.",
    )
    add = new.add_argument
    add("study", type=pathlib.Path, metavar="STUDY", help="a new folder")
    text = "workdirs of runs that draw; NAME=RUN names one in the report"
    add("runs", nargs="+", metavar="RUN", help=text)
    text = "one a line, or a JSON list; `file.json#name` takes one of several"
    add("--prompts", required=True, metavar="FILE", help=text)
    text = "an option of a run's own sampling, or of all runs; may be repeated"
    add("--set", action="append", default=[], metavar="[NAME.]KEY=VALUE", help=text)
    add("-k", type=int, default=1, help="candidates that --clip chooses from")
    add("--clip", type=pathlib.Path, metavar="RUN", help="shows the best of -k by it")
    add("--seed", type=int, default=0)
    add("--votes", type=int, default=5, metavar="N", help="people a pair (default: 5)")
    text = "of so many pairs of a rater one is a trap (default: 8; 0: none)"
    add("--trap-every", type=int, default=8, metavar="N", help=text)
    text = "and one repeats, with its sides changed (default: 12; 0: none)"
    add("--repeat-every", type=int, default=12, metavar="N", help=text)
    text = "pixels of all images (default: the largest run's)"
    add("--size", type=int, metavar="N", help=text)
    add("--batch", type=int, default=64, metavar="N", help="candidates in a call")
    add_devices(new)
    new.set_defaults(act=_new)

    serve = verbs.add_parser(
        "serve",
        help="show the pairs in a browser and store the votes",
        description="Prints the link and serves until it is interrupted. Votes are on "
        "disk when the page goes on; run it again and raters go on where they were.",
    )
    serve.add_argument("study", type=pathlib.Path, metavar="STUDY")
    text = (
        "who may reach it (default: this machine alone); others need the link's token"
    )
    serve.add_argument("--host", default="127.0.0.1", help=text)
    serve.add_argument("--port", type=int, default=8008, help="0: any that is free")
    text = "people a pair, where more are wanted than the study was made for"
    serve.add_argument("--votes", type=int, metavar="N", help=text)
    serve.set_defaults(act=_serve)

    report = verbs.add_parser(
        "report",
        help="count the votes: a page, a chart, JSON",
        description="Writes index.html, chart.png, pairs.png and results.json; also "
        "while the study is served.",
    )
    report.add_argument("study", type=pathlib.Path, metavar="STUDY")
    text = "where to (default: STUDY/report)"
    report.add_argument("--out", type=pathlib.Path, metavar="DIR", help=text)
    text = (
        "leave out raters with a smaller share of traps right, from 0 to 1 (default: "
    )
    text += "0, nobody); the report lists them"
    report.add_argument("--min-attention", type=float, default=0.0, help=text)
    text = "a contrastive run that judges too: CLIP score, preference, FID"
    report.add_argument("--clip", type=pathlib.Path, metavar="RUN", help=text)
    text = "real images: for FID, and for the oracle where they carry scenes"
    report.add_argument("--source", default="", metavar="SPEC", help=text)
    report.add_argument("--resamples", type=int, default=1000, metavar="N")
    report.add_argument("--seed", type=int, default=0)
    add_devices(report)
    report.set_defaults(act=_report)


def run(args: argparse.Namespace) -> int:
    return args.act(args)


def _new(args: argparse.Namespace) -> int:
    from mmjax.judging import study as studies
    from mmjax.train import lock

    named = [_named(text) for text in args.runs]
    studies.check_models([name for name, _ in named])
    studies.check_new(args.study)
    _at_least(args, votes=1, trap_every=0, repeat_every=0, k=1, size=8, batch=1)
    if args.k > 1 and args.clip is None:
        raise UserError(
            f"-k {args.k} needs somebody to choose: name a CLIP with --clip RUN"
        )
    prompts = studies.read_prompts(args.prompts)
    sampling = _sampling(args.set, [name for name, _ in named])
    runtime.configure(devices=args.devices)
    from mmjax.inference import load
    from mmjax.judging import draw

    with lock.lock(args.study, kind="study", key="STUDY"):
        drawers = draw.open_drawers(
            dict(named), prompts, sampling=sampling, batch=args.batch
        )
        clip = load.load_run(args.clip) if args.clip else None
        with sample.progress(len(prompts) * args.k * len(drawers)) as bar:
            images = draw.draw(
                drawers, prompts, k=args.k, seed=args.seed, clip=clip, tick=bar.update
            )
        study = studies.create(
            args.study,
            [drawer.model for drawer in drawers],
            prompts,
            images,
            side=args.size,
            seed=args.seed,
            votes=args.votes,
            trap_every=args.trap_every,
            repeat_every=args.repeat_every,
            drawn={
                "seed": args.seed,
                "k": args.k,
                "clip": str(args.clip) if clip else None,
                "clip_fingerprint": clip.fingerprint if clip else None,
            },
        )
    traps = len(study.pairs) - len(study.of("plain"))
    print(
        f"{args.study}: {len(study.of('plain'))} pairs of {len(drawers)} models and "
        f"{traps} traps; now: {runtime.command()} judge serve {args.study}"
    )
    return 0


def _named(text: str) -> tuple[str, pathlib.Path]:
    """(name, workdir) of NAME=RUN, or of RUN, which lends its own name."""
    name, equals, workdir = text.partition("=")
    if not equals or pathlib.Path(text).exists():
        path = pathlib.Path(text)
        return path.resolve().name, path
    if not name or not workdir or "." in name:
        raise UserError(f"{text}: give it as RUN or NAME=RUN, a NAME without dots")
    return name, pathlib.Path(workdir)


def _sampling(given: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    """By run, the options of --set; those without a name are everybody's."""
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in given:
        key, value = sample.option(text)
        name, dot, rest = key.partition(".")
        if dot and name not in options:
            raise UserError(
                f"--set {text}: no run is called {name!r}, only {', '.join(names)}"
            )
        for owner in [name] if dot else names:
            options[owner][rest if dot else key] = value
    return options


def _at_least(args: argparse.Namespace, **least: int) -> None:
    for name, low in least.items():
        value = getattr(args, name)
        if value is not None and value < low:
            dashes = "-" if len(name) == 1 else "--"
            option = dashes + name.replace("_", "-")
            raise UserError(f"{option} {value}: give {low} or more")


def _serve(args: argparse.Namespace) -> int:
    from mmjax.judging import server

    _at_least(args, votes=1, port=0)

    def say(link: str) -> None:
        print(f"{args.study}: open {link}  (Ctrl-C ends it)", flush=True)

    server.serve(args.study, host=args.host, port=args.port, target=args.votes, say=say)
    return 0


def _report(args: argparse.Namespace) -> int:
    from mmjax.judging import report, results, votes
    from mmjax.judging import study as studies

    if not 0 <= args.min_attention <= 1:
        raise UserError(
            f"--min-attention {args.min_attention}: give a share from 0 to 1"
        )
    _at_least(args, resamples=1)
    study = studies.open_study(args.study)
    cast = votes.read(args.study)
    draw = {"resamples": args.resamples, "seed": args.seed}
    summary = results.summary(study, cast, min_attention=args.min_attention, **draw)
    kept = [vote for vote in cast if vote.rater not in summary["excluded"]]
    automatic = None
    if args.clip or args.source:
        runtime.configure(devices=args.devices)
        from mmjax.inference import load
        from mmjax.judging import automatic as judges

        clip = load.load_run(args.clip) if args.clip else None
        automatic = judges.judge(
            args.study, study, kept, clip=clip, source=args.source, **draw
        )
    out = args.out or args.study / "report"
    report.write(out, args.study, study, kept, summary, automatic)
    for question, asked in summary["questions"].items():
        for row in asked["comparisons"]:
            if row["majority"] is None:
                continue
            ends = f"{row['majority_lo']:.1%} to {row['majority_hi']:.1%}"
            print(
                f"{question:8} {row['first']} over {row['second']}: majority of "
                f"{row['majority']:.1%} of {row['pairs']} pairs ({ends})"
            )
    if summary["excluded"]:
        listed = ", ".join(map(str, summary["excluded"]))
        print(f"left out for attention below {args.min_attention:g}: rater {listed}")
    print(f"report   {out / report.PAGE}\nnumbers  {out / report.NUMBERS}")
    return 0
