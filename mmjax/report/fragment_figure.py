"""Images with the regions that a sentence's fragments picked, in their colours."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax import errors

Row = tuple[np.ndarray, np.ndarray, Sequence[str], np.ndarray]


def draw(path: str | pathlib.Path, rows: Sequence[Row]) -> Any:
    """Writes a PNG of rows (image uint8 (H, W, 3), boxes (n, 4) as x y width height,
    texts of k fragments, the region that each picked (k,))."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(7, 3.2 * len(rows)), layout="constrained", dpi=110)
    cells = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(1, 1))
    palette = colormaps["tab10"].colors
    for (left, right), (image, boxes_n4, texts, pick_k) in zip(
        cells, rows, strict=True
    ):
        left.imshow(image)
        left.axis("off")
        right.axis("off")
        right.set(xlim=(0, 1), ylim=(max(len(texts), 1), 0))
        order = {region: i for i, region in enumerate(dict.fromkeys(pick_k.tolist()))}
        for region, i in order.items():
            x, y, w, h = boxes_n4[region]
            colour = palette[i % len(palette)]
            box = Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=2)
            left.add_patch(box)
            left.text(x + 2, y + 2, str(region), color=colour, fontsize=8, va="top")
        for line, (text, region) in enumerate(zip(texts, pick_k.tolist(), strict=True)):
            colour = palette[order[region] % len(palette)]
            shown = f"{text}  \N{RIGHTWARDS ARROW} {region}"
            right.text(0, line + 0.5, shown, color=colour, fontsize=9, va="center")
    with errors.writing(pathlib.Path(path)) as part:
        figure.savefig(part, format="png")
    return figure
