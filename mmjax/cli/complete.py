"""Completes an image from some of its pixels and a prompt, with a trained generator.

The image goes through the run's evaluation view (its size, crop or squash); the other
pixels are hidden from the model. A prior takes whole rows of tokens from the top: a
multiple of 4 pixels, where an image of 32 x 32 has 8 x 8 tokens. A diffusion model
takes any pixels: --mask names an image of the view's size, black where pixels are kept
and white where they are drawn anew.
"""

import argparse
import pathlib

from mmjax.cli import sample
from mmjax.errors import UserError

EXAMPLE = """examples:
  mmjax complete runs/demo/prior runs/demo/scene.png "a small red star" --rows 16 -k 8
  mmjax complete runs/diffusion photo.jpg "a small red star" --mask mask.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("image", type=pathlib.Path, metavar="IMAGE")
    parser.add_argument("prompt", metavar="PROMPT")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--rows", type=int, metavar="N", help="rows of pixels given")
    text = "an image, white where pixels are drawn anew"
    which.add_argument("--mask", type=pathlib.Path, metavar="IMAGE", help=text)
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
    if args.mask is None:
        known_ss[: args.rows] = True
    else:
        mask = load.read_image(args.mask)
        if mask.shape != view.shape:
            raise UserError(
                f"{args.mask} is {mask.shape[1]} x {mask.shape[0]}, and the model's "
                f"view of {args.image} {view.shape[1]} x {view.shape[0]}: give a mask "
                "of that size"
            )
        known_ss = mask.mean(-1) < 128
    with sample.progress(args.k) as bar:
        options = {"k": args.k, "seed": args.seed, "tick": bar.update}
        drawn = generator.complete([image], args.prompts, known=known_ss, **options)
    given = {"image": str(args.image), "rows": args.rows, "mask": str(args.mask or "")}
    return sample.finish(args, generator, drawn, clip, shown=[view], extra=given)
