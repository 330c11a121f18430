"""Classifies images by label names, with a trained model that has seen no labels.

Each label is embedded in every template, the embeddings averaged; images take the
nearest. Percentages are a softmax over the given labels: they add up to 100 whether or
not any of the labels fits. Exits with 3 where an image cannot be read, a folder holds
something else, or a label in its template is longer than the model reads.
"""

import argparse
import pathlib

import numpy as np

from mmjax.cli.embed import image_files
from mmjax.errors import LEFT_OUT, image_name
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax zeroshot runs/demo/clip runs/demo/scene.png --labels "red circle,blue square"
  mmjax zeroshot runs/flickr8k photos/ --labels dog,cat,person \\
      --templates "a photo of a {}." --png ranked.png
"""
_TOP = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", type=pathlib.Path, metavar="WORKDIR")
    add("images", nargs="+", metavar="IMAGE", help="files or folders")
    add("--labels", required=True, metavar="A,B,C")
    text = "a set (plain, photo, clip7, clip80), a file, or a sentence with {}; "
    text += "default: those of the run's own zero-shot evaluation, or photo"
    add("--templates", metavar="NAME", help=text)
    add("--png", type=image_name, metavar="FILE", help="draw results")
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--dtype", default="", metavar="NAME", help="of weights, such as bfloat16")


def run(args: argparse.Namespace) -> int:
    from mmjax.data import prompts

    labels = prompts.labels(args.labels)
    templates = prompts.load(args.templates) if args.templates else ()
    paths, beside = image_files(args.images)
    runtime.configure()
    from mmjax.inference import load, pretrained
    from mmjax.report import ranked_labels

    model = load.load_run(pretrained.place(args.workdir), args.step, args.dtype)
    templates = templates or model.templates()
    given = len(paths) + beside
    paths, pixels = load.read_images(paths)
    chances_nc = model.classify(pixels, labels, templates)
    width = max(map(len, labels))
    for path, chance_c in zip(paths, chances_nc, strict=True):
        print(path)
        for c in np.argsort(-chance_c, kind="stable")[:_TOP]:
            print(f"  {labels[c]:<{width}}  {100 * chance_c[c]:5.1f} %")
    if args.png:
        names = [path.name for path in paths]
        ranked_labels.ranked(args.png, pixels, labels, chances_nc, captions=names)
        print(f"image: {args.png}")
    whole = len(paths) == given and not model.cut(prompts.fill(templates, labels)).any()
    return 0 if whole else LEFT_OUT
