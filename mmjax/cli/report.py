"""Writes a page of a run: images first, then curves, numbers, cards and config.

One HTML file that loads nothing, WORKDIR/report.html. Images are the PNG files in the
workdir, such as sheets of `mmjax sample` and figures of suites; --draw runs the
evaluators that can draw first. A sweep's or a claim's folder has its own page,
index.html.
"""

import argparse
import pathlib

from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax report runs/demo/clip
  mmjax report runs/demo/clip --draw --out clip.html
"""
FILE = "report.html"
_FIGURES = "figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", type=pathlib.Path, metavar="RUN")
    text = "run the evaluators that draw figures, and show those"
    add("--draw", action="store_true", help=text)
    text = f"the page (default: RUN/{FILE})"
    add("--out", type=pathlib.Path, metavar="FILE.html", help=text)


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax import schema
    from mmjax.cli import inspect
    from mmjax.report import run_page
    from mmjax.suite import runner
    from mmjax.train import config, metric_writer, run_file

    workdir = args.workdir
    if (workdir / "index.html").is_file() and not run_file.exists(workdir):
        raise UserError(
            f"{workdir} is no run, and has its page: open {workdir}/index.html"
        )
    saved = run_file.read(workdir)
    if args.draw:
        _draw(workdir)
    rows = metric_writer.read(workdir)
    cfg = config.from_json(saved["config"])
    cards = {
        path.stem: schema.read_json(path)
        for path in sorted(workdir.glob("cards/*.json"))
    }
    last = max((row["step"] for row in rows), default=0)
    head = (
        f"A run of the task {cfg.task.name}: step {last:,} of {cfg.steps:,}, batches "
    )
    head += f"of {cfg.batch_size:,}, seed {cfg.seed}."
    text = run_page.document(
        f"{cfg.task.name}: {workdir.name}",
        head,
        images=_images(workdir),
        rows=rows,
        values=metric_writer.evaluations(workdir),
        cards=cards,
        config="\n".join(line.strip() for line in inspect.config_lines(cfg)),
    )
    out = args.out or workdir / FILE
    runner.write(out, text)
    print(out)
    return 0


def _images(workdir: pathlib.Path) -> list[pathlib.Path]:
    """PNG files of a workdir: its own, those drawn, and those of its suites."""
    found = [*workdir.glob("*.png"), *workdir.glob(f"{_FIGURES}/*.png")]
    return [*sorted(found), *sorted(workdir.glob("evals/*/figures/*.png"))]


def _draw(workdir: pathlib.Path) -> None:
    """Runs the evaluators whose modules have a `figure`, and saves it."""
    from mmjax import evaluators
    from mmjax.inference import load
    from mmjax.report import figures
    from mmjax.train import evaluate

    seen = load.load_run(workdir)
    for name, section in seen.parts.cfg.evals.items():
        module = evaluators.find(section["type"], f"config.evals.{name}")
        if not hasattr(module, "figure") or evaluate.off(section):
            continue
        result = evaluate.evaluate(seen.parts, seen.state.eval_vars(), (name,))[name]
        drawn = module.figure(result.values, result.arrays, name)
        figures.save(drawn, workdir / _FIGURES / f"{name}.png")
