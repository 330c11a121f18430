"""One PNG of images beside the labels a model ranks first for them."""

import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.report import figures

RIGHT, WRONG, PLAIN, REST = "#2e8b57", "#c0504d", "#4472a8", "#c9d3df"


def ranked(
    path: str | pathlib.Path,
    images: Sequence[np.ndarray],
    labels: Sequence[str],
    scores_nc: np.ndarray,
    *,
    truth: Sequence[int | str] | None = None,
    captions: Sequence[str] | None = None,
    top: int = 5,
    title: str = "",
) -> pathlib.Path:
    """Writes a PNG and returns its path: images with their best labels as bars.

    Args:
      images: n uint8 (H, W, 3) arrays, of any sizes.
      labels: c names.
      scores_nc: (n, c) numbers in [0, 1], such as probabilities.
      truth: the right label of each image, as a position in `labels` or a name. With
        it the right bar is green (and shown last where its rank is beyond `top`) and
        a wrong first bar red; without it the first is blue.
      captions: a line under each image, such as its file name.

    Raises:
      UserError: the numbers of images, labels and scores disagree, or are none.
    """
    scores_nc = np.asarray(scores_nc, np.float64)
    if scores_nc.shape != (len(images), len(labels)) or not scores_nc.size:
        raise UserError(
            f"a figure of {len(images)} images and {len(labels)} labels needs scores "
            f"of shape ({len(images)}, {len(labels)}), got {scores_nc.shape}"
        )
    for name, given in (("truth", truth), ("captions", captions)):
        if given is not None and len(given) != len(images):
            raise UserError(f"{len(given)} {name} for {len(images)} images")
    rows = min(top, len(labels))
    figure, grid = _figure(len(images), rows, title)
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


def _figure(count: int, rows: int, title: str) -> tuple[Any, list[tuple[Any, Any]]]:
    """A figure of 1 to 3 columns, and (image axes, bar axes) per image."""
    from matplotlib.figure import Figure  # slow to import

    columns = min(3, math.ceil(count / 3))
    lines = math.ceil(count / columns)
    cell, head = max(1.7, 0.3 * rows + 0.35), 0.55 if title else 0.15
    width, height = 5.2 * columns, cell * lines + head + 0.1
    figure = Figure(figsize=(width, height), dpi=110)
    style = {"fontsize": 13, "color": figures.INK, "va": "center"}
    figure.text(0.02, 1 - 0.3 / height, title, **style)
    scale = np.asarray([width, height, width, height])
    grid = []
    for i in range(count):
        line, column = divmod(i, columns)
        left, bottom = 5.2 * column + 0.15, 0.2 + (lines - 1 - line) * cell
        boxes = [left, bottom, 1.45, cell - 0.2], [left + 1.65, bottom, 3, cell - 0.2]
        grid.append(tuple(figure.add_axes(tuple(box / scale)) for box in boxes))
    return figure, grid


def _image(axes: Any, image: np.ndarray, caption: str) -> None:
    # small images are shown as the squares they are; large ones are smoothed
    small = max(image.shape[:2]) <= 96
    axes.imshow(image, interpolation="nearest" if small else "antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#dddddd")
    axes.set_xlabel(_shorten(caption, 26), fontsize=7, color="#777777", labelpad=2)


def _bars(
    axes: Any,
    names: Sequence[str],
    scores: np.ndarray,
    positions: np.ndarray,
    wanted: int | None,
) -> None:
    first = PLAIN if wanted is None else WRONG
    colours = [first, *[REST] * (len(names) - 1)]
    colours = [
        RIGHT if position == wanted else colour
        for position, colour in zip(positions, colours, strict=True)
    ]
    y = np.arange(len(names))
    axes.barh(y, np.clip(scores, 0, 1), height=0.34, color=colours)
    axes.barh(y, 1, height=0.34, color="#f1f3f6", zorder=0)
    for i, (name, score) in enumerate(zip(names, scores, strict=True)):
        strong = "bold" if i == 0 else "normal"
        ink = figures.INK if colours[i] == REST else colours[i]
        line = {"fontsize": 8.5, "va": "bottom", "fontweight": strong, "color": ink}
        axes.text(0, i - 0.22, _shorten(name, 36), **line)
        axes.text(1, i - 0.22, f"{100 * score:.1f} %", ha="right", **line)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.7, -0.8))
    axes.axis("off")


def _position(label: int | str, labels: Sequence[str]) -> int:
    if isinstance(label, str):
        if label not in labels:
            raise UserError(f"the true label {label!r} is not among the labels")
        return list(labels).index(label)
    return int(label)


def _shorten(text: str, width: int) -> str:
    short = textwrap.shorten(text, width, placeholder="…")
    if text and not short:  # one long word
        short = text[: width - 1] + "…"
    return short.replace("$", r"\$")  # matplotlib would read $...$ as a formula
