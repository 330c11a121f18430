"""Aligns two sequences in time: their path, its cost, a figure, both on one clock.

A and B are .npy, .npz or .csv files of numbers, a frame a row; FILE.npz:NAME picks one
array of several. dtw compares columns, ddtw their slopes, soft counts all paths by
their cost, and ctw first finds a space that sequences of unlike columns share.
"""

import argparse
import pathlib

import numpy as np

from mmjax import errors
from mmjax.data.sources import npz
from mmjax.errors import UserError, image_name
from mmjax.parallel import runtime

METHODS = ("dtw", "ddtw", "soft", "ctw")
EXAMPLE = """examples:
  mmjax align a.npy b.npy --out path.png
  mmjax align audio.npz:mfcc lips.csv --method ctw --ridge 0.01 --out path.png \\
      --save aligned.npz
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("A", "B"):
        parser.add_argument(name, help="a file of frames, one a row")
    parser.add_argument("--method", choices=METHODS, default="dtw")
    parser.add_argument("--out", type=image_name, metavar="PNG", help="the figure")
    parser.add_argument(
        "--save",
        type=pathlib.Path,
        metavar="NPZ",
        help="path (l, 2), and a and b along it",
    )
    parser.add_argument(
        "--radius", type=int, default=0, help="of a Sakoe-Chiba band, in frames"
    )
    parser.add_argument(
        "--gamma", type=float, default=1.0, help="of soft, in squared units of the data"
    )
    parser.add_argument("--ridge", type=float, default=0.0, help="of ctw, 0 to below 1")
    parser.add_argument("--init", default="uniform", help="of ctw: uniform, dtw, pca")


def run(args: argparse.Namespace) -> int:
    if args.radius < 0:
        raise UserError(
            f"--radius is {args.radius}: use 1 frame or more, or 0 for none"
        )
    if not args.gamma > 0:
        raise UserError(f"--gamma is {args.gamma}: use more than 0")
    a_np, b_mq = read(args.A), read(args.B)
    runtime.configure()
    from mmjax import alignment

    band = alignment.Band("sakoe_chiba", args.radius) if args.radius else None
    shown = a_np, b_mq
    if args.method == "ctw":
        how = {"ridge": args.ridge, "init": args.init, "band": band}
        found = alignment.ctw(a_np, b_mq, **how)
        shown = tuple(to(x) for to, x in zip(found.maps, shown, strict=True))
        told = " ".join(f"{c:.3f}" for c in found.correlations)
        print(f"{len(found.changes)} turns, canonical correlations {told}")
    elif args.method == "ddtw":
        found = alignment.ddtw(a_np, b_mq, band=band)
        shown = alignment.derivative(a_np), alignment.derivative(b_mq)
    else:
        found = alignment.dtw(a_np, b_mq, band=band)
    weight_nm = None
    if args.method == "soft":
        cost, weight_nm = alignment.expected(a_np, b_mq, gamma=args.gamma, band=band)
        print(f"soft-DTW {cost:.6g} at gamma {args.gamma:g}")
    path_l2 = found.path
    print(f"{len(a_np)} and {len(b_mq)} frames, {len(path_l2)} steps, {found.cost:.6g}")
    if args.save:
        a, b = alignment.warp(a_np, b_mq, path_l2)
        with errors.writing(args.save) as part:
            np.savez(part, path=path_l2, a=a, b=b)
        print(args.save)
    if args.out:
        from mmjax.report import alignment_figure, figures

        title = (
            f"{args.method}: {pathlib.Path(args.A).name}, {pathlib.Path(args.B).name}"
        )
        drawn = alignment_figure.draw(*shown, path_l2, title, weight_nm)
        print(figures.save(drawn, args.out))
    return 0


def read(place: str) -> np.ndarray:
    """The frames of a file, (n,) or (n, columns).

    Raises:
      UserError: no such file, another kind, arrays to choose from, no numbers.
    """
    name, array = place, ""
    if ".npz:" in place:
        name, _, array = place.rpartition(":")
    path = pathlib.Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"no file {name}: give a .npy, .npz or .csv file of frames")
    try:
        if path.suffix == ".csv":
            return _csv(path)
        if path.suffix not in (".npy", ".npz"):
            raise UserError(f"{name} is not .npy, .npz or .csv: save its frames as one")
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {name}: {error}") from None
    held = npz.read(path)
    names = ", ".join(held)
    if array and array not in held:
        raise UserError(f"{name} has no array {array!r}: it has {names or 'none'}")
    if not array and len(held) != 1:
        say = f"write {name}:{next(iter(held))}, say" if held else "save its frames"
        raise UserError(f"{name} has {names or 'no array'}: {say}")
    return held[array or next(iter(held))]


def _csv(path: pathlib.Path) -> np.ndarray:
    """Numbers between commas; a first line of names is passed over."""
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline().strip().split(",")
    try:
        [float(cell) for cell in first]
        names = 0
    except ValueError:
        names = 1
    return np.loadtxt(
        path, delimiter=",", skiprows=names, ndmin=2, encoding="utf-8-sig"
    )
