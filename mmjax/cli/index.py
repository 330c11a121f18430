"""Builds an index of images by a trained model, and searches it by text or image.

Search is exact, in chunks on the devices, unless --probes asks for FAISS's lists, or
--bits for binary codes.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.errors import LEFT_OUT, UserError, image_name
from mmjax.parallel import runtime

if TYPE_CHECKING:
    from mmjax.retrieval.exact import Exact
    from mmjax.retrieval.gallery import Gallery, Hit
    from mmjax.retrieval.store import Store

_FITTED = 50_000  # rows that teach the codes

EXAMPLE = """examples:
  mmjax index build runs/flickr8k --source "folder:/photos?label=none" --out photos.idx
  mmjax index search photos.idx --text "a dog in the snow" --top 8 --out found.png
  mmjax index search photos.idx --image cat.jpg
  mmjax index faiss photos.idx --lists 1024 --probes 16   # needs mmjax[faiss]
  mmjax index search photos.idx --text "a dog" --probes 16
  mmjax index hash photos.idx --bits 64
  mmjax index search photos.idx --text "a dog" --bits 64
  mmjax index show photos.idx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    build = verbs.add_parser(
        "build",
        help="embed the images of a source",
        description="Embeds every image once. Run it again to go on after a stop. "
        "Exits with 3 where broken records were left out.",
    )
    build.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    build.add_argument("--source", required=True, metavar="SPEC")
    build.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    build.add_argument("--step", type=int, help="a saved step (default: the newest)")
    build.add_argument(
        "--dtype", default="float32", help="of the rows: float32, float16, bfloat16"
    )
    build.add_argument("--shard-rows", type=int, default=1 << 16, metavar="N")
    build.set_defaults(act=_build)

    search = verbs.add_parser(
        "search",
        help="the nearest images of texts and images",
        description="Exits with 3 where an image cannot be read, or a text is longer "
        "than the model reads.",
    )
    search.add_argument("index", type=pathlib.Path, metavar="DIR")
    search.add_argument("--text", action="append", default=[], dest="texts")
    search.add_argument("--image", action="append", default=[], dest="images")
    add_search(search)
    search.add_argument("--probes", type=int, metavar="N", help="FAISS: lists to look")
    search.add_argument("--bits", type=int, metavar="N", help="by Hamming distance")
    how = "count differing bits with FAISS; needs mmjax[faiss]"
    search.add_argument("--faiss", action="store_true", help=how)
    search.set_defaults(act=_search)

    faiss = verbs.add_parser(
        "faiss",
        help="add an inverted file, and measure its recall",
        description="Adds FAISS's inverted file and measures the share of the 10 "
        "nearest that it finds, for 1,000 rows of the index as queries.",
    )
    faiss.add_argument("index", type=pathlib.Path, metavar="DIR")
    faiss.add_argument("--lists", type=int, required=True, metavar="N")
    faiss.add_argument("--probes", type=int, default=8, metavar="N")
    faiss.add_argument("--seed", type=int, default=0)
    faiss.set_defaults(act=_faiss)

    hashed = verbs.add_parser(
        "hash",
        help="add binary codes, and measure their recall",
        description="Adds codes of the rows' principal components, rotated towards "
        "corners of a cube (ITQ), and measures the share of the 10 nearest that they "
        "find, for 1,000 rows of the index as queries.",
    )
    hashed.add_argument("index", type=pathlib.Path, metavar="DIR")
    hashed.add_argument("--bits", type=int, required=True, metavar="N")
    hashed.add_argument("--seed", type=int, default=0)
    hashed.set_defaults(act=_hash)

    show = verbs.add_parser("show", help="what an index is of; checks every file")
    show.add_argument("index", type=pathlib.Path, metavar="DIR")
    show.set_defaults(act=_show)


def add_search(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that searches."""
    parser.add_argument("--top", type=int, default=10, metavar="N")
    parser.add_argument("--out", type=image_name, metavar="FILE.png")
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="where the index's model is now, if moved"
    )
    parser.add_argument("--step", type=int, help="a saved step of it")


def run(args: argparse.Namespace) -> int:
    return args.act(args)


def _build(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.inference import load
    from mmjax.retrieval import gallery

    made = gallery.build_gallery(
        load.load_run(args.workdir, args.step),
        args.source,
        args.out,
        dtype=args.dtype,
        shard_rows=args.shard_rows,
        say=progress,
    ).store
    left = made.facts.source["records"] - made.count
    print(f"{args.out}: {made.count} images, {made.facts.d} numbers each", end="")
    print(f"; {left} broken records left out" if left else "")
    return LEFT_OUT if left else 0


def progress(done: int, total: int) -> None:
    """One line on a terminal, none elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{done}/{total} images", end=end, file=sys.stderr, flush=True)


def _search(args: argparse.Namespace) -> int:
    if not args.texts and not args.images:
        raise UserError("nothing to search for: give --text, --image or both")
    if args.bits is not None and args.probes is not None:
        raise UserError(f"--bits {args.bits} and --probes {args.probes}: give one")
    if args.faiss and args.bits is None:
        raise UserError("--faiss counts bits: give --bits, or --probes for its lists")
    runtime.configure()
    from mmjax.inference import load
    from mmjax.retrieval import gallery

    searched = gallery.open_gallery(args.index, args.workdir, args.step)
    rows, run = [], searched.run
    read, pixels = load.read_images(args.images)
    queries = [None] * len(args.texts) + pixels
    if args.texts:
        rows.append(run.embed_texts(args.texts))
    if read:
        rows.append(run.embed_images(pixels))
    how = {name: getattr(args, name) for name in ("probes", "bits", "faiss")}
    hits = searched.search(np.concatenate(rows), args.top, **how)
    names = [*args.texts, *read]
    for name, listed in zip(names, hits, strict=True):
        print("\n".join([name, *lines(listed)]))
    if args.out:
        draw(args.out, searched, names, queries, hits)
    whole = len(read) == len(args.images) and not run.cut(args.texts).any()
    return 0 if whole else LEFT_OUT


def lines(hits: Sequence["Hit"]) -> list[str]:
    """One line a hit: rank, cosine, key, first caption."""
    width = max((len(hit.key) for hit in hits), default=0)
    return [
        f"  {rank:3}  {hit.score:6.3f}  {hit.key:<{width}}"
        + "".join(f"  {caption}" for caption in hit.text[:1])
        for rank, hit in enumerate(hits, 1)
    ]


def draw(
    path: pathlib.Path,
    searched: "Gallery",
    names: Sequence[str],
    queries: Sequence[np.ndarray | None],
    hits: Sequence[Sequence["Hit"]],
) -> None:
    """A sheet with a row a query: its own image, blank without one, then its hits.

    The column of queries is left out where none has an image.
    """
    from mmjax.report import image_grid
    from mmjax.retrieval import gallery

    rows = [[searched.image(hit) for hit in listed] for listed in hits]
    if any(query is not None for query in queries):
        blank = np.full((8, 8, 3), 255, np.uint8)
        for row, query in zip(rows, queries, strict=True):
            row.insert(0, blank if query is None else query)
    flat = iter(gallery.tiles([image for row in rows for image in row]))
    image_grid.draw(path, [[next(flat) for _ in row] for row in rows], list(names))
    print(f"image: {path}")


def _faiss(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.retrieval import approximate, store

    made = store.open_store(args.index)
    approximate.build(made, lists=args.lists, seed=args.seed)
    rows_qd, exactly = _queries(made, args.seed)
    share = approximate.measure(made, exactly, rows_qd, probes=args.probes)
    print(
        f"{args.index}: {args.lists} lists; with {args.probes} probed, recall@10 "
        f"{share:.4f} over {len(rows_qd)} of its own rows as queries"
    )
    return 0


def _hash(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.metrics import hashing
    from mmjax.retrieval import approximate, binary, store

    made = store.open_store(args.index)
    hashing.check_bits(args.bits, made.facts.d)
    rng = np.random.default_rng(args.seed)
    many = min(_FITTED, made.count)
    sample = np.sort(rng.choice(made.count, many, replace=False))
    fitted = hashing.pca_itq(made.rows(sample), args.bits, seed=args.seed)
    binary.build(made, fitted.means[0], fitted.weights[0])
    rows_qd, exactly = _queries(made, args.seed)
    near_qk = binary.open_index(made, args.bits).search(rows_qd, 10)[1]
    share = approximate.recall(near_qk, exactly.search(rows_qd, 10)[1])
    print(
        f"{args.index}: {args.bits} bits, {args.bits // 8 * 10**6} bytes a million "
        f"rows; recall@10 {share:.4f} over {len(rows_qd)} of its own rows as queries"
    )
    return 0


def _queries(made: "Store", seed: int) -> tuple[np.ndarray, "Exact"]:
    """Up to 1,000 of an index's own rows, and its exact search."""
    from mmjax import parallel
    from mmjax.retrieval import exact

    rng = np.random.default_rng(seed)
    rows = rng.choice(made.count, min(1000, made.count), replace=False)
    placed = parallel.Layout().batch_sharding
    return made.rows(rows), exact.Exact(made.shards, placed)


def _show(args: argparse.Namespace) -> int:
    from mmjax.retrieval import store

    made = store.open_store(args.index)
    made.verify()
    facts = {**vars(made.facts), "count": made.count, "shards": len(made.shards)}
    print(json.dumps(facts, indent=1))
    print("every file has the SHA-256 that was written")
    return 0
