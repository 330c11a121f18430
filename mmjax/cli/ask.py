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
    if args.top < 1:
        raise UserError(f"--top is {args.top}: use 1 or more")
    runtime.configure()
    from mmjax.inference import answer, load

    model = load.load_run(args.workdir, args.step, args.dtype)
    answerer = answer.Answerer(model)
    answers = answerer.ask(load.read_image(args.image), args.question)
    for name, chance in answers[: args.top]:
        print(f"{100 * chance:5.1f} %  {name}")
    return LEFT_OUT if model.cut([args.question]).any() else 0
