"""Writes unit embeddings of images and texts, made by a trained model, to an npz file.

The file holds image_embeddings (n, d) with image_paths, and text_embeddings (m, d)
with texts, all float32 or strings: `numpy.load` reads it without pickle. texts_cut
bool (m,) says which texts were longer than the model reads. Images that cannot be read
and what a folder holds beside images are left out. Exits with 3 where something was
left out, or cut.

With --records it holds what the image tower of a run gives before any head, for all
records of a source in order: features float32 (n, f), key, captions and label; with
--regions also regions float16 (n, r, f) and boxes (n, r, 4). Train on the file as
`npz:FILE?text=captions&key=key`.
"""

import argparse
import logging
import pathlib
from collections.abc import Sequence

import numpy as np

from mmjax import errors
from mmjax.errors import LEFT_OUT, UserError
from mmjax.parallel import runtime

log = logging.getLogger(__name__)

EXAMPLE = """examples:
  mmjax embed runs/demo/clip --images photos/ cat.jpg --out photos.npz
  mmjax embed runs/demo/clip --texts captions.txt "a red circle" --out texts.npz
  mmjax embed runs/demo/clip --records "shapes:val?count=64" --out shapes.npz
  mmjax embed runs/demo/clip --records shapes:val --regions whole,boxes --out boxes.npz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workdir", type=pathlib.Path, metavar="WORKDIR")
    add("--images", nargs="+", default=[], metavar="PATH", help="files or folders")
    text = "sentences, or .txt files with one a line"
    add("--texts", nargs="+", default=[], metavar="TEXT", help=text)
    add("--records", metavar="SOURCE", help="features of all images of a source")
    text = "features of regions, too: whole, cells:SIDE, boxes, search:COUNT, by commas"
    add("--regions", metavar="KINDS", help=text)
    text = "show the network each region alone, rather than to pool its feature map"
    add("--crop", action="store_true", help=text)
    add("--out", required=True, type=pathlib.Path, metavar="FILE.npz")
    add("--step", type=int, help="a saved step (default: the newest)")
    add("--dtype", default="", metavar="NAME", help="of weights, such as bfloat16")


def run(args: argparse.Namespace) -> int:
    if not args.images and not args.texts and not args.records:
        raise UserError("nothing to embed: give --images, --texts, or --records")
    if args.records and (args.images or args.texts):
        raise UserError("--records makes a file of its own: leave --images, --texts")
    if (args.regions or args.crop) and not (args.records and args.regions):
        raise UserError("--crop is of --regions, and these are of --records: give both")
    if not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.records:
        return _records(args)
    from mmjax.data import prompts

    (paths, beside), texts = image_files(args.images), []
    for text in args.texts:
        texts += prompts.read_list(text) if text.endswith(".txt") else [text]
    runtime.configure()
    from mmjax.inference import load

    model = load.load_run(args.workdir, args.step, args.dtype)
    arrays: dict[str, np.ndarray] = {}
    read, views = load.read_images(paths, model.view)
    if read:
        arrays["image_embeddings"] = model.embed_images(views)
        arrays["image_paths"] = np.asarray([str(p) for p in read])
    if texts:
        arrays["text_embeddings"] = model.embed_texts(texts)
        arrays["texts"] = np.asarray(texts)
        arrays["texts_cut"] = model.cut(texts)
    _save(args.out, arrays)
    dim = next(iter(arrays.values())).shape[1]
    cut = int(arrays.get("texts_cut", np.zeros(0)).sum())
    left = len(paths) - len(read)
    print(f"{args.out}: {len(read)} images and {len(texts)} texts, {dim} numbers each")
    if left or cut:
        print(f"{left} images were left out, and {cut} texts cut")
    return LEFT_OUT if left or cut or beside else 0


def _records(args: argparse.Namespace) -> int:
    """Features of a source's records, see `mmjax.inference.features`."""
    from mmjax.data.sources import open_source
    from mmjax.inference import features, load

    regions = features.Regions(args.regions, args.crop) if args.regions else None
    source = open_source(args.records)
    runtime.configure()
    run = load.load_run(args.workdir, args.step, args.dtype)
    arrays, broken = features.of_records(run, source, regions)
    for error in broken:
        log.warning("left out: %s", error)
    _save(args.out, arrays)
    shapes = ", ".join(f"{key} {value.shape}" for key, value in arrays.items())
    print(f"{args.out}: {shapes}")
    if broken:
        print(f"{len(broken)} records were left out")
    return LEFT_OUT if broken else 0


def _save(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    # Opened here, since np.savez would add a suffix.
    with errors.writing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def image_files(given: Sequence[str]) -> tuple[list[pathlib.Path], int]:
    """(files as they are and those of folders as `folder:` lists them, how many things
    beside them were left out); warnings name those.

    UserError where a path is missing, or a folder holds no images.
    """
    from mmjax.data.sources import folder

    paths: list[pathlib.Path] = []
    left = 0
    for path in map(pathlib.Path, given):
        if not path.exists():
            raise UserError(f"no image file or folder {path}")
        if not path.is_dir():
            paths.append(path)
            continue
        source = folder.Folder(path, "none")
        for part in source.left_out:
            log.warning("left out: %s", part)
        left += len(source.left_out)
        paths += [path / file for file in source.files]
    return paths, left
