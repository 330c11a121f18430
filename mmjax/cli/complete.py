"""Completes an image from its top rows and a prompt, with a trained prior.

The image goes through the run's evaluation view (its size, crop or squash); what lies
below the given rows of tokens is hidden from the model.
"""

import argparse
import pathlib

from mmjax.cli import sample

EXAMPLE = """examples:
  mmjax complete runs/demo/prior scene.png "a small red star" --rows 4 -k 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("image", type=pathlib.Path, metavar="IMAGE")
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument(
        "--rows", type=int, required=True, metavar="N", help="rows of tokens given"
    )
    sample.add_options(parser, default="complete.png")


def run(args: argparse.Namespace) -> int:
    args.prompts = [args.prompt]
    clip, generator = sample.begin(args)
    from mmjax.inference import load

    image = load.read_image(args.image)
    view = generator.parts.image_cfg.evaluate(image)
    if image.shape != view.shape:
        height, width = image.shape[:2]
        mode, side = generator.parts.image_cfg.mode, view.shape[0]
        print(f"note: {args.image} is {width} x {height}: {mode} to {side} x {side}")
    with sample.progress(args.k) as bar:
        got = generator.complete(
            [image],
            args.prompts,
            rows=args.rows,
            k=args.k,
            seed=args.seed,
            tick=bar.update,
        )
    given = {"image": str(args.image), "rows": args.rows}
    return sample.finish(args, generator, got, clip, shown=[view], extra=given)
