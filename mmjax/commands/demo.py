"""Trains a small CLIP on embedded shapes, then classifies images it has never seen.

Takes minutes on two CPU cores and needs no data: scenes are drawn by our code. Colour
and shape pairs of `unseen` never occur in training. Run it again to go on after a stop.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from mmjax import runtime
from mmjax.errors import UserError

EXAMPLE = """examples:
  mmjax demo
  mmjax demo --workdir runs/short --steps 200
"""
CONFIG = "configs/clip.py:shapes"
_CLOCK = "seconds.json"  # spent in all the calls that a run took


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs/demo"), metavar="DIR"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="train for fewer steps")
    parser.add_argument(
        "--config",
        default=CONFIG,
        metavar="FILE.py:ARG",
        help=f"a config with the evaluators of {CONFIG}, the default",
    )
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    begin = time.perf_counter()
    runtime.configure()
    from mmjax import train

    cfg = _config(args)
    spent = _spent(args.workdir)
    finished = spent > 0 and _steps_done(args.workdir) >= cfg.steps
    try:
        values = train.run(cfg, args.workdir)
    except train.Interrupted as e:
        print(f"mmjax: {e}; run the same command to go on", file=sys.stderr)
        return e.code
    finally:
        if not finished:
            spent += time.perf_counter() - begin
            if args.workdir.is_dir():
                (args.workdir / _CLOCK).write_text(json.dumps(spent))
    summary = summarise(values, cfg, minutes=spent / 60)
    path = args.workdir / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n")
    png = draw(args.workdir, cfg)
    print("\n".join(report(summary, args.workdir)))
    print(f"\nsummary  {path}\npicture  {png}\ninspect  mmjax inspect {args.workdir}")
    return 0


def _config(args: argparse.Namespace) -> Any:
    from mmjax import config

    overrides = list(args.overrides)
    if args.steps is not None:
        warmup = max(1, args.steps // 20)
        overrides = [
            f"--config.steps={args.steps}",
            f"--config.optim.warmup={warmup}",
            *overrides,
        ]
    cfg = config.load(args.config, overrides)
    for name in ("val", "unseen", "retrieval"):
        if name not in cfg.evals:
            raise UserError(
                f"--config={args.config} has no evaluator {name!r}, which the demo "
                f"reports: use {CONFIG}, or mmjax train"
            )
    return cfg


def _spent(workdir: pathlib.Path) -> float:
    path = workdir / _CLOCK
    return json.loads(path.read_text()) if path.exists() else 0.0


def _steps_done(workdir: pathlib.Path) -> int:
    from mmjax import metrics

    rows = metrics.read(workdir)
    return rows[-1]["step"] if rows else 0


def summarise(
    values: Mapping[str, float], cfg: Any, *, minutes: float
) -> dict[str, float]:
    """The flat numbers of summary.json: accuracies with 95 % intervals, cost, size."""
    named = {
        "zero_shot_val": "val/top1",
        "zero_shot_unseen": "unseen/top1",
        "retrieval_r1": "retrieval/i2t_r1",
        "retrieval_text_to_image_r1": "retrieval/t2i_r1",
    }
    found: dict[str, float] = {}
    for name, key in named.items():
        for suffix in ("", "_lo", "_hi"):
            found[name + suffix] = values[key + suffix]
    about = runtime.describe()
    return found | {
        "minutes": round(minutes, 2),
        "steps": cfg.steps,
        "images_seen": cfg.steps * cfg.batch_size,
        "cores": about["cores"],
        "devices": about["devices"],
    }


def report(summary: Mapping[str, float], workdir: pathlib.Path) -> list[str]:
    """The result table as lines; counts are those of the result cards."""
    classes = _card(workdir, "val")["class_names"]["count"]
    images = _card(workdir, "retrieval")["counts"]["images"]
    about = runtime.describe()
    rows = (
        (f"zero-shot, {classes} classes, val", "zero_shot_val", 1 / classes),
        ("zero-shot, unseen colour-shape pairs", "zero_shot_unseen", 1 / classes),
        (f"image to text, {images} images, R@1", "retrieval_r1", None),
        ("text to image, R@1", "retrieval_text_to_image_r1", None),
    )
    lines = ["", f"{'':<38} {'result':>8}  {'95 % interval':>16}  chance"]
    for title, name, chance in rows:
        low, high = summary[f"{name}_lo"], summary[f"{name}_hi"]
        beside = "" if chance is None else f"{100 * chance:5.1f} %"
        span = f"{100 * low:.1f} to {100 * high:.1f}"
        line = f"{title:<38} {100 * summary[name]:6.1f} %  {span:>16} {beside:>8}"
        lines.append(line.rstrip())
    spent = f"{summary['minutes']:.1f} minutes, {summary['steps']} steps"
    lines.append(f"{spent}, {about['cores']} cores, {about['device']}")
    return lines


def _card(workdir: pathlib.Path, name: str) -> dict[str, Any]:
    return json.loads((workdir / "cards" / f"{name}.json").read_text())


def draw(workdir: pathlib.Path, cfg: Any, *, each: int = 6) -> pathlib.Path:
    """A PNG of val and unseen images with their ranked labels; its path."""
    import numpy as np

    from mmjax import notebook
    from mmjax.data import prompts
    from mmjax.data.sources import open_source
    from mmjax.evaluators import picture

    records, names = [], []
    for name in ("val", "unseen"):
        source = open_source(cfg.evals[name].source)
        chosen = np.linspace(0, len(source) - 1, each).astype(int)
        records += [source[int(i)] for i in chosen]
        names += [name] * each
    images = [record["image"] for record in records]
    labels = source.class_names
    templates = prompts.load(cfg.evals.val.templates)
    model = notebook.load_run(workdir)
    return picture.ranked(
        workdir / "zero_shot.png",
        images,
        labels,
        model.classify(images, labels, templates),
        truth=[record["label"] for record in records],
        captions=names,
        title="Zero-shot: images never seen, labels by name",
    )
