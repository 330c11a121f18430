"""Checks, gets and indexes sources, trains a BPE, builds data sets, encodes images.

A SOURCE is kind:place?option=value, such as shapes:train, webdataset:/d/x-*.tar,
jsonl:/d/x.jsonl, folder:/d, npz:/d/x.npz, tfds:name/split?data_dir=/d.
"""

import argparse
import itertools
import os
import pathlib
from typing import Any

from mmjax import errors
from mmjax.cli import _shares
from mmjax.errors import LEFT_OUT, UserError

EXAMPLE = """examples:
  mmjax data check shapes:val "webdataset:/data/x-*.tar" --out sheet.png
  mmjax data index "webdataset:/data/x-*.tar" --jobs 8
  mmjax data bpe "webdataset:/data/x-*.tar" --vocab-size 8192 --out bpe.json
  mmjax data build photos --data-dir /data/tfds --split train=folder:/photos
  mmjax data build mnist --data-dir /data/tfds --manual-dir /data/mnist_files
  mmjax data get mnist --from downloads
  mmjax data encode runs/demo/tokenizer shapes:train --out /data/shapes_tokens
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    check = verbs.add_parser(
        "check",
        help="count, find broken records, draw a contact sheet",
        description="Decodes every record. Exits with 3 where one is broken, or where "
        "something beside the records was left out.",
    )
    check.add_argument("sources", nargs="+", metavar="SOURCE")
    sheet = pathlib.Path("data_check.png")
    text = f"where the contact sheet goes (default: {sheet})"
    check.add_argument(
        "--out", type=pathlib.Path, default=sheet, metavar="FILE.png", help=text
    )
    check.set_defaults(act=_check)

    _add_get(verbs)

    index = verbs.add_parser(
        "index",
        help="index tar shards beside them, in parallel",
        description="Reads every header of tar shards once. Training would do so, too, "
        "in one process. Run it again to go on after a stop.",
    )
    index.add_argument("sources", nargs="+", metavar="SOURCE")
    index.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    _shares.add_arguments(index)
    index.set_defaults(act=_index)

    bpe = verbs.add_parser(
        "bpe",
        help="train a tokenizer on the captions of sources",
        description="Trains a byte-level BPE; same captions, same tokenizer.",
    )
    bpe.add_argument("sources", nargs="+", metavar="SOURCE")
    bpe.add_argument("--vocab-size", type=int, required=True, metavar="N")
    text = "records of a source whose captions are read, at most (default: a million)"
    bpe.add_argument("--sample", type=int, default=1_000_000, metavar="N", help=text)
    bpe.add_argument("--context", type=int, default=77, metavar="N")
    bpe.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE.json")
    bpe.set_defaults(act=_bpe)

    build = verbs.add_parser(
        "build",
        help="write a data set as ArrayRecord, to read as tfds:NAME/SPLIT",
        description="With --split, NAME is a new data set of captioned images. "
        "Without, it is mnist, made from the four files in --manual-dir, or another "
        "data set of TFDS.",
    )
    build.add_argument("name", metavar="NAME")
    build.add_argument("--data-dir", type=pathlib.Path, required=True, metavar="DIR")
    build.add_argument("--manual-dir", type=pathlib.Path, metavar="DIR")
    build.add_argument(
        "--split", action="append", default=[], metavar="SPLIT=SOURCE", dest="splits"
    )
    build.set_defaults(act=_build)

    encode = verbs.add_parser(
        "encode",
        aliases=["tokenize"],
        help="write image tokens or latents, to read as tokens:DIR or latents:DIR",
        description="Encodes every image once by a trained image tokenizer or "
        "autoencoder, as an evaluation sees it, one source after another. Run it again "
        "to go on after a stop, and without --shard once all shares are done.",
    )
    encode.add_argument("workdir", type=pathlib.Path, metavar="WORKDIR")
    encode.add_argument("sources", nargs="+", metavar="SOURCE")
    encode.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    encode.add_argument("--step", type=int, help="a saved step (default: the newest)")
    encode.add_argument(
        "--batch-size", type=int, metavar="N", help="images a call (the run's own)"
    )
    _shares.add_arguments(encode)
    encode.set_defaults(act=_encode)


def _add_get(verbs: Any) -> None:
    get = verbs.add_parser(
        "get",
        help="convert a public set that was downloaded, for configs to read",
        description="Checks what was downloaded and unpacked in a folder, and writes "
        "what configs read below $MMJAX_DATA. Without NAME, lists the sets and where "
        "each is to be had.",
    )
    get.add_argument("name", nargs="?", metavar="NAME")
    get.add_argument("--from", dest="source", type=pathlib.Path, metavar="FOLDER")
    text = "where the sets go (default: $MMJAX_DATA)"
    get.add_argument("--out", type=pathlib.Path, metavar="DIR", help=text)
    get.set_defaults(act=_get)


def run(args: argparse.Namespace) -> int:
    return args.act(args)


def _check(args: argparse.Namespace) -> int:
    from mmjax.data import check, records
    from mmjax.data.sources import open_source

    sources = [open_source(spec) for spec in args.sources]
    for source in sources:
        if records.stage1(source):
            raise UserError(
                f"{source.name} holds image tokens and no images: check the source "
                "that it was made of"
            )
    report = check.check(sources, args.out)
    print(report.text())
    if report.unsaved:
        raise UserError(report.unsaved)
    return LEFT_OUT if report.broken or report.left_out else 0


def _get(args: argparse.Namespace) -> int:
    from mmjax.data import get

    if not args.name:
        print("\n".join(f"{name:<9} {known.home}" for name, known in get.SETS.items()))
        return 0
    out = args.out or os.environ.get("MMJAX_DATA")
    if not args.source or not out:
        home = get.SETS[args.name].home if args.name in get.SETS else "its home"
        raise UserError(
            f"download {args.name} from {home} and give --from FOLDER; --out DIR, or "
            "MMJAX_DATA, says where it goes"
        )
    for path in get.get(args.name, args.source, pathlib.Path(out)):
        print(path)
    return 0


def _index(args: argparse.Namespace) -> int:
    import tqdm

    from mmjax.data import shard_index, sources, storage
    from mmjax.data.sources import encoded

    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: use 1 process or more")
    for spec in args.sources:
        kind, path, _ = sources.parse(spec)
        if kind != "webdataset":
            raise UserError(f"{spec}: only shards of webdataset: have an index")
        blobs = storage.find(path)
        share = args.shard.of(blobs) if args.shard else blobs
        with tqdm.tqdm(total=len(share), unit="shard", mininterval=1.0) as bar:
            shard_index.build(
                share,
                encoded.SUFFIXES,
                jobs=args.jobs,
                say=lambda done, total, bar=bar: bar.update(done - bar.n),
            )
        if args.shard:
            print(f"{spec}: {len(share)} of {len(blobs)} shards are indexed")
            continue
        index = shard_index.join(blobs, encoded.SUFFIXES)
        size = index.path.stat().st_size if index.path else 0
        print(f"{spec}: {len(index.rows)} samples in {len(blobs)} shards", end="")
        print(f", {size / max(1, len(index.rows)):.1f} bytes each in {index.path}")
    return 0


def _bpe(args: argparse.Namespace) -> int:
    from mmjax.data.sources import open_source, views
    from mmjax.data.tokenizers import bpe as bpe_lib

    if args.sample < 1:
        raise UserError(f"--sample {args.sample}: use 1 record or more")
    if not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}")
    sources = [open_source(spec) for spec in args.sources]
    made = bpe_lib.train_bpe(
        itertools.chain(*(views.sampled_texts(one, args.sample) for one in sources)),
        vocab_size=args.vocab_size,
        context=args.context,
    )
    with errors.writing(args.out) as part:
        part.write_text(made.to_json(), encoding="utf-8")
    asked = f" ({args.vocab_size} asked for)" * (made.vocab_size != args.vocab_size)
    print(f"{args.out}: {made.vocab_size} ids{asked}, context {made.context}")
    key = "--config.data.fields.tokens"
    print(f"use it with {key}.tokenizer=bpe {key}.path={args.out.absolute()}")
    return 0


def _build(args: argparse.Namespace) -> int:
    from mmjax.data import build

    if args.splits:
        wrong = [text for text in args.splits if not all(text.partition("="))]
        if wrong:
            raise UserError(f"--split {wrong[0]}: write --split SPLIT=SOURCE")
        splits = dict(text.split("=", 1) for text in args.splits)
        made = build.build(splits, args.data_dir, name=args.name)
    elif args.name == "mnist" and args.manual_dir:
        made = build.mnist(args.data_dir, manual_dir=args.manual_dir)
    else:
        made = build.builtin(args.name, args.data_dir, manual_dir=args.manual_dir)
    name = made.relative_to(args.data_dir).parts[0]
    print(f"{made}\nread it as tfds:{name}/SPLIT?data_dir={args.data_dir}")
    return 0


def _encode(args: argparse.Namespace) -> int:
    from mmjax.inference import encode
    from mmjax.parallel import runtime

    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: use 1 or more")
    runtime.configure()
    share = args.shard or _shares.Share(0, 1)
    options = {"step": args.step, "batch_size": args.batch_size}
    places = args.workdir, args.sources, args.out
    header = encode.encode(*places, **options, files=share.of)
    if not header.complete:
        print(f"{args.out}: this share is written; run the command without --shard")
        return 0
    stage1 = header.stage1
    what, kind = f"{stage1.grid} x {stage1.grid} tokens", "tokens"
    if stage1.channels:
        what, kind = f"latents of {stage1.shape}", "latents"
    print(f"{args.out}: {header.records} records of {what} by {stage1.fingerprint}")
    print(f"read it as {kind}:{args.out}")
    return 0
