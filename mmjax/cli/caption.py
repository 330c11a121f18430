"""Says what images show, by a trained captioner.

Captions are the most probable ones, found by beam search, or drawn (`--set
method=sample --set top_p=0.9`). A run that reads features of images needs the network
that made them, `--features RUN`. Exits with 3 where an image cannot be read or a folder
holds something else.
"""

import argparse
import pathlib

from mmjax.cli import sample
from mmjax.cli.embed import image_files
from mmjax.errors import LEFT_OUT
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax train --config configs/caption.py:tiny --workdir runs/caption
  mmjax caption runs/caption photo.jpg photos/ --set k=5 --all
  mmjax caption runs/caption photo.jpg --attention maps
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", type=pathlib.Path, metavar="RUN")
    add("images", nargs="+", metavar="IMAGE", help="files or folders")
    add("--all", action="store_true", help="every beam or draw, with its score")
    text = "an option of how captions are found, such as k=5 or length_norm=0.7; may "
    text += "be repeated"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "a folder for maps of where the model looked for each word"
    add("--attention", type=pathlib.Path, metavar="FOLDER", help=text)
    text = "of a run that reads features of images, the run that made them"
    add("--features", type=pathlib.Path, metavar="RUN", help=text)
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--dtype", default="", metavar="NAME", help="of weights, such as bfloat16")


def run(args: argparse.Namespace) -> int:
    paths, beside = image_files(args.images)
    runtime.configure()
    from mmjax.inference import caption, load
    from mmjax.report import attention_maps, figures

    model = load.load_run(args.workdir, args.step, args.dtype)
    network = load.load_run(args.features) if args.features else None
    options = dict(map(sample.option, args.set))
    captioner = caption.Captioner(model, options, network)
    read, images = load.read_images(paths)
    said, arrays = captioner.say(images)
    for path, texts, score_k in zip(read, said, arrays["score"], strict=True):
        print(f"{path}\t{texts[0]}")
        for text, score in zip(texts, score_k, strict=True) if args.all else ():
            print(f"  {score:9.3f}  {text}")
    if args.attention:
        seen_pmn = captioner.attention(images, arrays["caption"][:, 0])
        rows = zip(read, images, said, seen_pmn, strict=True)
        for path, image, texts, seen_mn in rows:
            words, view = texts[0].split(), captioner.view(image)
            drawn = attention_maps.draw(view, words, seen_mn)
            print(figures.save(drawn, args.attention / f"{path.stem}.png"))
    return LEFT_OUT if len(read) < len(paths) or beside else 0
