"""Serves a page of trained runs: type a prompt, drop an image, search an index.

What it offers follows from the runs: candidates for a prompt and the lower half of an
image by a generator, ranked by a contrastive run where one is given; labels of an image
and search by a contrastive run; captions and answers. Needs mmjax[app].
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from mmjax.cli.train import add_devices
from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax app runs/demo/prior runs/demo/clip
  mmjax app runs/emoji --index emoji.idx --port 8080
  mmjax app runs/demo/prior --host 0.0.0.0     # prints a link with a token
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    text = "images to search, which one of the runs indexed"
    add("--index", type=pathlib.Path, metavar="DIR", help=text)
    text = "of a captioner that reads features of images, the run that made them"
    add("--features", type=pathlib.Path, metavar="RUN", help=text)
    text = "candidates drawn at a time (default: 4)"
    add("--batch", type=int, default=4, metavar="N", help=text)
    text = (
        "who may reach it (default: this machine alone); others need the link's token"
    )
    add("--host", default="127.0.0.1", help=text)
    add("--port", type=int, default=8009, help="0: any that is free")
    add_devices(parser)


def run(args: argparse.Namespace) -> int:
    if args.batch < 1 or args.port < 0:
        raise UserError(
            f"--batch {args.batch}, --port {args.port}: give a batch of 1 or more "
            "and a port of 0 or more"
        )
    runtime.configure(devices=args.devices)
    from mmjax.app import server

    def say(link: str) -> None:
        print(f"open {link}  (Ctrl-C ends it; it compiles meanwhile)", flush=True)

    server.serve(lambda: _tools(args), host=args.host, port=args.port, say=say)
    return 0


def _tools(args: argparse.Namespace) -> Sequence[Any]:
    from mmjax.app import server
    from mmjax.inference import load
    from mmjax.retrieval import store

    index = store.open_store(args.index) if args.index else None
    features = load.load_run(args.features) if args.features else None
    runs = [load.load_run(workdir) for workdir in args.runs]
    return server.offered(runs, index=index, features=features, batch=args.batch)
