"""One PNG of images beside the labels a model ranks first for them."""

import math
import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError
from mmjax.report import figures

RIGHT, WRONG, PLAIN, REST = "#2e8b57", "#c0504d", "#4472a8", "#c9d3df"
FAINT = "#777777"


def ranked(
    path: str | pathlib.Path,
    images: Sequence[np.ndarray],
    labels: Sequence[str],
    scores_nc: np.ndarray,
    *,
    truth: Sequence[int | str] | None = None,
    captions: Sequence[str] | None = None,
    top: int = 5,
    columns: int | None = None,
    title: str = "",
) -> pathlib.Path:
    """Writes a PNG: every image with its best labels as bars, the best on top.

    Args:
      images: n uint8 (H, W, 3) arrays, of any sizes.
      labels: c names; scores_nc: (n, c) numbers in [0, 1], such as probabilities.
      truth: the right label of each image, as a position in `labels` or a name. With
        it the right bar is green (and shown last where its rank is beyond `top`) and
        a wrong first bar red; without it the first is blue.
      captions: a line under each image, such as its file name.
      columns: images side by side; None picks 1 to 3 by how many there are.

    Returns:
      The path, its folders made.

    Raises:
      UserError: the numbers of images, labels and scores disagree, or are none.
    """
    scores_nc = np.asarray(scores_nc, np.float64)
    if scores_nc.shape != (len(images), len(labels)) or not scores_nc.size:
        raise UserError(
            f"a picture of {len(images)} images and {len(labels)} labels needs scores "
            f"of shape ({len(images)}, {len(labels)}), got {scores_nc.shape}"
        )
    for name, given in (("truth", truth), ("captions", captions)):
        if given is not None and len(given) != len(images):
            raise UserError(f"{len(given)} {name} for {len(images)} images")
    rows = min(top, len(labels))
    columns = columns or min(3, math.ceil(len(images) / 3))
    figure, grid = _figure(len(images), columns, rows, title)
    for i, (left, right) in enumerate(grid):
        _image(left, images[i], captions[i] if captions else "")
        wanted = None if truth is None else _position(truth[i], labels)
        order = np.argsort(-scores_nc[i], kind="stable")
        best = order[:rows].copy()
        names = [labels[j] for j in best]
        if wanted is not None and wanted not in best:
            best[-1] = wanted
            rank = int(np.flatnonzero(order == wanted)[0]) + 1
            names[-1] = f"(rank {rank}) {labels[wanted]}"
        _bars(right, names, scores_nc[i, best], best, wanted)
    return figures.save(figure, path)


def _figure(count: int, columns: int, rows: int, title: str):
    """A figure, and (image axes, bar axes) per image."""
    from matplotlib import figure as figure_lib  # slow to import

    lines = math.ceil(count / columns)
    cell = max(1.7, 0.3 * rows + 0.35)
    head = 0.55 if title else 0.15
    width, height = 5.2 * columns, cell * lines + head + 0.1
    figure = figure_lib.Figure(figsize=(width, height), dpi=110)
    if title:
        figure.text(
            0.02, 1 - 0.3 / height, title, fontsize=13, color=figures.INK, va="center"
        )
    grid = []
    for i in range(count):
        line, column = divmod(i, columns)
        bottom = 0.1 + (lines - 1 - line) * cell
        box = [5.2 * column + 0.15, bottom + 0.1, 1.45, cell - 0.2]
        bars = [box[0] + box[2] + 0.2, box[1], 3.0, box[3]]
        scale = np.asarray([width, height, width, height])
        grid.append(tuple(figure.add_axes(list(b / scale)) for b in (box, bars)))
    return figure, grid


def _image(axes, image: np.ndarray, caption: str) -> None:
    # small images are shown as the squares they are; large ones are smoothed
    small = max(image.shape[:2]) <= 96
    axes.imshow(image, interpolation="nearest" if small else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#dddddd")
    if caption:
        short = textwrap.shorten(caption, 26, placeholder="…") or caption[:25] + "…"
        axes.set_xlabel(_plain(short), fontsize=7, color=FAINT, labelpad=2)


def _bars(
    axes,
    names: Sequence[str],
    scores: np.ndarray,
    positions: np.ndarray,
    wanted: int | None,
) -> None:
    y = np.arange(len(names))
    colours = [_colour(i, int(p), wanted) for i, p in enumerate(positions)]
    axes.barh(y, np.clip(scores, 0, 1), height=0.34, color=colours)
    axes.barh(y, 1, height=0.34, color="#f1f3f6", zorder=0)
    for i, (name, score) in enumerate(zip(names, scores, strict=True)):
        strong = "bold" if i == 0 else "normal"
        ink = colours[i] if colours[i] not in (REST,) else figures.INK
        shown = _plain(textwrap.shorten(name, 36, placeholder="…") or name[:35] + "…")
        line = {"fontsize": 8.5, "va": "bottom", "fontweight": strong, "color": ink}
        axes.text(0, i - 0.22, shown, **line)
        axes.text(1, i - 0.22, f"{100 * score:.1f} %", ha="right", **line)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.7, -0.8)
    axes.axis("off")


def _colour(rank: int, position: int, wanted: int | None) -> str:
    if position == wanted:
        return RIGHT
    if rank:
        return REST
    return PLAIN if wanted is None else WRONG


def _position(label: int | str, labels: Sequence[str]) -> int:
    if isinstance(label, str):
        if label not in labels:
            raise UserError(f"the true label {label!r} is not among the labels")
        return list(labels).index(label)
    return int(label)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read $...$ as a formula
