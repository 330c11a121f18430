"""Trains CLIP and DALL-E on drawn shapes, and judges what they draw.

That is text to image from nothing: CLIP, an image tokenizer and a prior are trained;
images are drawn for prompts that nobody rendered, and ranked by CLIP; an oracle without
any learned part judges them.

Needs no data and two CPU cores. Images lie in the workdir as they are made. Run it
again to go on after a stop; a demo that is done says so. `--until clip` ends after the
first model: zero-shot classification and retrieval. `--plan quick` trains half as long.
`--pack` writes the models of a finished demo as one small file, which `mmjax sample
demo` reads where MMJAX_DEMO names it.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from mmjax import schema
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax demo
  mmjax demo --until clip
  mmjax demo --plan quick --workdir runs/quick  # half of the time
  mmjax demo --plan tiny --workdir runs/tiny    # seconds; the numbers mean nothing
  mmjax demo --pack demo.tar
"""
STAGES = ("clip", "tokenizer", "tokens", "prior", "samples", "judge")
# (title, name in summary.json, chance or None)
_ROWS = (
    ("zero-shot, 64 classes, val", "zero_shot_val", 1 / 64),
    ("zero-shot, unseen colour-shape pairs", "zero_shot_unseen", 1 / 64),
    ("image to text R@1", "retrieval_r1", None),
    ("text to image R@1", "retrieval_text_to_image_r1", None),
    ("codes in use", "code_usage", None),
    ("new captions drawn right, first sample", "oracle_new_k1", None),
    ("new captions, best of 8 by CLIP", "oracle_new_k8", None),
    ("new captions, best of 64 by CLIP", "oracle_new_k64", None),
    ("captions met in training, first sample", "oracle_seen_k1", None),
    ("unseen pairs, first sample", "oracle_unseen_k1", None),
    ("unseen pairs, best of 64", "oracle_unseen_k64", None),
    ("lower half completed right", "completion_oracle", None),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs/demo"), metavar="DIR"
    )
    parser.add_argument(
        "--until", choices=STAGES, default=STAGES[-1], help="the last stage to do"
    )
    parser.add_argument("--plan", choices=("quick", "full", "tiny"), default="full")
    text = "write the models of the demo in --workdir as one file, and train nothing"
    parser.add_argument("--pack", type=pathlib.Path, metavar="FILE.tar", help=text)


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.train import loop
    from mmjax_demo import judge, plan, stages

    if args.pack:
        return _pack(args)
    demo = stages.Demo(plan.PLANS[args.plan], args.workdir)
    try:
        worked = demo.run(args.until, _say)
    except loop.Interrupted as e:
        print(f"mmjax: {e}; run the same command to go on", file=sys.stderr)
        return e.status()
    whole = args.until == STAGES[-1]
    if not worked:
        print(f"{args.workdir} is done already")
    if not whole:
        summary = demo.clip_summary()
    elif worked or not (args.workdir / "report.html").exists():
        summary = judge.finish(args.workdir, demo.minutes(), demo.first_image())
    else:
        summary = schema.read_json(args.workdir / "summary.json", fix="delete it")
    print("\n".join(table(summary)))
    print(f"\nsummary  {args.workdir}/summary.json")
    print(f"image    {args.workdir}/zero_shot.png")
    if whole:
        print(f"report   {args.workdir}/report.html")
    print("\n".join(["\ngo on with", *commands(demo, whole=whole)]))
    return 0


def _say(text: str) -> None:
    """A line above the progress bar, if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


def _pack(args: argparse.Namespace) -> int:
    from mmjax.claims import results
    from mmjax.inference import pretrained
    from mmjax_demo import plan

    recipe = {
        "command": f"mmjax demo --plan {args.plan}",
        "seed": plan.PLANS[args.plan].seed,
        "commit": results.commit(),
        "made_with": runtime.describe(),
    }
    done = args.workdir / "summary.json"
    if done.exists():
        recipe["results"] = schema.read_json(done, fix="delete it")
    size = pretrained.pack(args.workdir, args.pack, recipe)
    print(f"archive  {args.pack} ({size / 1e6:.1f} MB)")
    where = f"{pretrained.VARIABLE}={shlex.quote(str(args.pack))}"
    print(f'use it   {where} {runtime.command()} sample demo "a small red star"')
    return 0


def commands(demo: Any, *, whole: bool) -> list[str]:
    """What to do next, each line as a shell takes it; `whole`: there is a prior."""
    mmjax, prompt = runtime.command(), '"a small red star"'
    clip, prior, scene = (
        shlex.quote(str(demo.workdir / name)) for name in ("clip", "prior", "scene.png")
    )
    lines = [f'{mmjax} zeroshot {clip} {scene} --labels "red circle,blue star"']
    if whole:
        lines += [
            f"{mmjax} sample {prior} {prompt} -k 64 --clip {clip} --top 8",
            f"{mmjax} complete {prior} {scene} {prompt} --rows {demo.plan.size // 2}",
        ]
    lines.append(f"{mmjax} inspect {clip}")
    activate = pathlib.Path(mmjax).with_name("activate")
    if activate.is_file():
        lines.append(f"source {activate}    # from then on, mmjax is enough")
    return lines


def table(summary: Mapping[str, float]) -> list[str]:
    """The results as lines, with intervals and chance."""
    lines = ["", f"{'':<38} {'result':>8}  {'95 % interval':>16}  chance"]
    for title, name, chance in _ROWS:
        if name not in summary:
            continue
        span = ""
        if f"{name}_lo" in summary:
            low, high = summary[f"{name}_lo"], summary[f"{name}_hi"]
            span = f"{100 * low:.1f} to {100 * high:.1f}"
        beside = "" if chance is None else f"{100 * chance:5.1f} %"
        line = f"{title:<38} {100 * summary[name]:6.1f} %  {span:>16} {beside:>8}"
        lines.append(line.rstrip())
    if "seconds_to_first_image" in summary:
        first = summary["seconds_to_first_image"]
        lines.append(f"{'first image':<38} {first:6.0f} s")
    if "psnr" in summary:
        lines.append(f"{'reconstructions':<38} {summary['psnr']:6.1f} dB PSNR")
    about = runtime.describe()
    cost = f"{summary['minutes']:.1f} minutes, {about['cores']} cores"
    lines.append(f"{cost}, {about['device']}")
    return lines
