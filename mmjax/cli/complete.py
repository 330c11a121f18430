"""Completes an image from its top rows and a prompt, with a trained generator.

The image goes through the run's evaluation view (its size, crop or squash); what lies
below the given rows of pixels is hidden from the model. A prior takes whole rows of
tokens: a multiple of 4 pixels, where an image of 32 x 32 has 8 x 8 tokens.
"""

import argparse
import pathlib

from mmjax.cli import sample

EXAMPLE = """examples:
  mmjax complete runs/demo/prior runs/demo/scene.png "a small red star" --rows 16 -k 8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("image", type=pathlib.Path, metavar="IMAGE")
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument(
        "--rows", type=int, required=True, metavar="N", help="rows of pixels given"
    )
    sample.add_options(parser, default="complete.png")


def run(args: argparse.Namespace) -> int:
    args.prompts = [args.prompt]
    clip, generator = sample.begin(args)
    import numpy as np

    from mmjax.inference import load

    image = load.read_image(args.image)
    view = generator.parts.image_cfg.evaluate(image)
    if image.shape != view.shape:
        height, width = image.shape[:2]
        mode, side = generator.parts.image_cfg.mode, view.shape[0]
        print(f"note: {args.image} is {width} x {height}: {mode} to {side} x {side}")
    known_ss = np.zeros(view.shape[:2], bool)
    known_ss[: args.rows] = True
    with sample.progress(args.k) as bar:
        options = {"k": args.k, "seed": args.seed, "tick": bar.update}
        drawn = generator.complete([image], args.prompts, known=known_ss, **options)
    given = {"image": str(args.image), "rows": args.rows}
    return sample.finish(args, generator, drawn, clip, shown=[view], extra=given)
