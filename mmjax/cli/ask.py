"""Answers a question about an image, with a trained model of the task vqa.

The answers are those that the model was trained with, each with its chance in percent.
Exits with 3 where the question is longer than the model reads.
"""

import argparse
import pathlib

from mmjax.errors import LEFT_OUT, UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax ask runs/vqa photo.jpg "is there a red shape?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", type=pathlib.Path, metavar="WORKDIR")
    add("image", type=pathlib.Path, metavar="IMAGE")
    add("question", metavar="QUESTION")
    add("--top", type=int, default=3, metavar="N", help="answers shown")
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--dtype", default="", metavar="NAME", help="of weights, such as bfloat16")


def run(args: argparse.Namespace) -> int:
    if not any(c.isalnum() for c in args.question):
        raise UserError(
            f"the question {args.question!r} has no words: ask one, such as "
            '"is there a red shape?"'
        )
    if args.top < 1:
        raise UserError(f"--top is {args.top}: use 1 or more")
    runtime.configure()
    import numpy as np

    from mmjax.data import fields
    from mmjax.inference import load

    model = load.load_run(args.workdir, args.step, args.dtype)
    parts = model.parts
    kind = model.config.task.name
    if "logits" not in parts.predict or "tokens" not in parts.task.reads:
        raise UserError(
            f"{args.workdir} is a run of task {kind}, which answers nothing"
        )
    if parts.image_cfg is None:
        raise UserError(
            f"{args.workdir} looks at {parts.task.reads[0]} of several images, and one "
            "image is given: `mmjax eval` asks about records"
        )
    image = load.read_image(args.image)
    given = fields.encode(parts.fields, "image", [image])
    given |= fields.encode(parts.fields, "tokens", [args.question])
    size = parts.layout.rows
    batch = {key: np.repeat(value, size, 0) for key, value in given.items()}
    logits_a = parts.predict["logits"](model.state.eval_vars(), batch)[0]
    odds_a = np.exp(logits_a - logits_a.max())
    answers = parts.fields["label"].class_names
    for rank in np.argsort(-odds_a, kind="stable")[: args.top]:
        name = answers[rank] if rank < len(answers) else f"answer {rank}"
        print(f"{100 * odds_a[rank] / odds_a.sum():5.1f} %  {name}")
    return LEFT_OUT if model.cut([args.question]).any() else 0
