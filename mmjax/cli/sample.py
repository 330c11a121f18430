"""Draws images for prompts from a trained prior: a PNG grid, and JSON beside it.

Candidate number c of a prompt is the same picture whatever -k is. With --clip, a
trained contrastive run, the candidates are shown best first.
"""

import argparse
import json
import pathlib
from typing import Any

from mmjax.cli.train import add_devices
from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax sample runs/demo/prior "a small red star above a blue ring" -k 64 --seed 0
  mmjax sample runs/demo/prior "a red star" "a blue ring" -k 64 \\
      --clip runs/demo/clip --top 8 --out best.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    add_options(parser, default="sample.png")


def add_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """What `sample` and `complete` share."""
    parser.add_argument("-k", type=int, default=8, help="candidates (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clip", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument(
        "--top", type=int, metavar="N", help="show the N best only; needs --clip"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(default), metavar="FILE.png"
    )
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--top-k", type=int, metavar="N", help="0: all tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="1: all tokens")
    parser.add_argument(
        "--guidance", type=float, metavar="S", help="classifier-free; 1: off"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--batch", type=int, default=64, metavar="N", help="candidates in a call"
    )
    parser.add_argument("--step", type=int, help="a saved step (default: the newest)")
    add_devices(parser)


def run(args: argparse.Namespace) -> int:
    clip, generator = begin(args)
    with progress(len(args.prompts) * args.k) as bar:
        got = generator.sample(args.prompts, k=args.k, seed=args.seed, tick=bar.update)
    return finish(args, generator, got, clip)


def begin(args: argparse.Namespace) -> tuple[Any, Any]:
    """(the contrastive run or None, the generator), after checking the options."""
    if args.top is not None and args.clip is None:
        raise UserError("--top ranks by a contrastive run: name it with --clip WORKDIR")
    if args.top is not None and not 1 <= args.top <= args.k:
        raise UserError(f"--top {args.top} of -k {args.k}: give 1 to {args.k}")
    if args.k < 1:
        raise UserError(f"-k {args.k}: ask for one candidate or more")
    runtime.configure(devices=args.devices)
    from mmjax.inference import generate, load

    names = ("temperature", "top_k", "top_p", "guidance", "dtype")
    given = {name: getattr(args, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    prior = load.load_run(args.workdir, args.step)
    generator = generate.Generator(prior, sampling=given, batch=args.batch)
    generator.check_prompts(args.prompts)
    for prompt in args.prompts:
        spelled = generator.pieces(prompt)
        if spelled:
            words = ", ".join(f"{word!r} in {many}" for word, many in spelled.items())
            print(f"note: spelled in pieces, perhaps never seen in training: {words}")
    return load.load_run(args.clip) if args.clip else None, generator


def progress(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="image", dynamic_ncols=True, disable=None)


def finish(
    args: argparse.Namespace,
    generator: Any,
    got: Any,
    clip: Any,
    *,
    shown: list | None = None,
    extra: dict | None = None,
) -> int:
    """Ranks, draws and writes; `shown`: pictures that lead each row."""
    import dataclasses

    import numpy as np

    from mmjax.inference import generate
    from mmjax.report import image_grid

    order_pk = np.tile(np.arange(args.k), (len(got.prompts), 1))
    scores_pk = None
    if clip is not None:
        image_pkd, text_pd = generate.embeddings(clip, got)
        scores_pk = np.einsum("pkd,pd->pk", image_pkd, text_pd)
        order_pk = np.argsort(-scores_pk, axis=1, kind="stable")
    order_pk = order_pk[:, : args.top or args.k]
    rows, captions, report = [], [], []
    for p, prompt in enumerate(got.prompts):
        lead = [shown[p]] if shown is not None else []
        pictures = [*lead, *(got.images[p, c] for c in order_pk[p])]
        lines = [pictures[i : i + 16] for i in range(0, len(pictures), 16)]
        rows += lines
        captions += [prompt] + [""] * (len(lines) - 1)
        listed = []
        for c in order_pk[p]:
            one = {"candidate": int(c), "log_prob": float(got.log_probs[p, c])}
            if scores_pk is not None:
                one["clip"] = float(scores_pk[p, c])
            listed.append({**one, "image_tokens": got.tokens[p, c].tolist()})
        report.append({"prompt": prompt, "shown": listed})
    png = image_grid.draw(args.out, rows, captions)
    about = {
        "workdir": str(args.workdir),
        "clip": str(args.clip) if args.clip else None,
        "seed": args.seed,
        "k": args.k,
        "sampling": dataclasses.asdict(generator.options),
        **(extra or {}),
        "prompts": report,
    }
    beside = png.with_suffix(".json")
    beside.write_text(json.dumps(about, indent=1) + "\n")
    print(f"picture  {png}\nnumbers  {beside}")
    return 0
