"""Finds the images nearest to image - text + text: a sum of unit embeddings.

Images count 1 and texts --weight, each at length one. A text moves a query towards the
texts, away from all images, so subtract as many as you add. An image of the query is
left out of what is found. Exits with 3 where a text is longer than the model reads.
"""

import argparse
import contextlib
import pathlib
import tempfile

import numpy as np

from mmjax.cli.index import add_search, draw, lines, progress
from mmjax.errors import LEFT_OUT, UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax arithmetic --index emoji.idx --image woman.png --minus woman --plus man \\
      --out sheet.png
  mmjax arithmetic --workdir runs/demo/clip --source "shapes:val?objects=1" \\
      --record 3 --minus circle --plus star
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--index", type=pathlib.Path, metavar="DIR", help="search this")
    where.add_argument(
        "--source", metavar="SPEC", help="search this, embedded for once by --workdir"
    )
    parser.add_argument("--image", action="append", default=[], dest="images")
    parser.add_argument(
        "--record", action="append", default=[], type=int, dest="records", metavar="N"
    )
    parser.add_argument("--plus", action="append", default=[], metavar="TEXT")
    parser.add_argument("--minus", action="append", default=[], metavar="TEXT")
    parser.add_argument("--weight", type=float, default=1.0, metavar="W")
    add_search(parser)


def run(args: argparse.Namespace) -> int:
    if not args.images and not args.records:
        raise UserError("nothing to start from: give --image FILE or --record N")
    if args.source and not args.workdir:
        raise UserError("--source is embedded by a model: give its --workdir")
    runtime.configure()
    from mmjax.inference import load
    from mmjax.retrieval import gallery

    with contextlib.ExitStack() as stack:
        if args.index:
            searched = gallery.open_gallery(args.index, args.workdir, args.step)
        else:
            model = load.load_run(args.workdir, args.step)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            searched = gallery.build_gallery(model, args.source, folder, say=progress)
        given = [load.read_image(path) for path in args.images]
        for record in args.records:
            given.append(searched.image(searched.hit(searched.row_of(record), 1.0)))
        query_d = searched.run.combine(given, args.plus, args.minus, weight=args.weight)
        hits = [
            hit
            for hit in searched.search(query_d[None], args.top + len(given))[0]
            if not any(np.array_equal(searched.image(hit), image) for image in given)
        ][: args.top]
        name = formula(args)
        print("\n".join([name, *lines(hits)]))
        if args.out:
            shown = given[0] if len(given) == 1 else None
            draw(args.out, searched, [name], [shown], [hits])
        cut = searched.run.cut([*args.plus, *args.minus]).any()
    return LEFT_OUT if cut else 0


def formula(args: argparse.Namespace) -> str:
    """The query as one writes it."""
    images = [pathlib.Path(path).name for path in args.images]
    images += [f"record {record}" for record in args.records]
    times = "" if args.weight == 1 else f"{args.weight:g} x "
    minus = "".join(f' - {times}"{text}"' for text in args.minus)
    return " + ".join(images) + minus + "".join(f' + {times}"{t}"' for t in args.plus)
