"""Where a captioner looked for each word, drawn over the image.

Legend: m words, n cells of the image, s side in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.errors import UserError
from mmjax.report import figures

COLUMNS, INCHES = 6, 1.5  # panels side by side, inches of a panel


def grid(weight_mn: np.ndarray) -> np.ndarray:
    """Weights by row and column of the image, (m, rows, columns).

    One cell more than a square has is a class token's, before all others: it lies
    nowhere, and is left out.

    Raises:
      UserError: the cells are no square.
    """
    m, n = weight_mn.shape
    side = math.isqrt(n)
    if n == side * side + 1 and side > 1:
        weight_mn, n = weight_mn[:, 1:], n - 1
    if n != side * side or side == 1:
        raise UserError(
            f"the model looks at {n} cells, which are no square of the image: its maps "
            "cannot be drawn, so leave attention out"
        )
    return weight_mn.reshape(m, side, side)


def draw(image: np.ndarray, words: Sequence[str], weight_mn: np.ndarray) -> Any:
    """The figure: the image, then a panel a word, light where the model looked.

    Args:
      image: uint8 (s, s, 3), the model's view of it.
      weight_mn: of each word over the cells, adding up to 1.
    """
    maps_mrc = grid(weight_mn[: len(words)])
    figure, axes = figures.grid(
        len(words) + 1, width=INCHES, height=INCHES * 1.15, columns=COLUMNS
    )
    for panel in axes:
        panel.axis("off")
    axes[0].imshow(image)
    grey = image.mean(-1)
    for panel, word, map_rc in zip(axes[1:], words, maps_mrc, strict=True):
        shade = Image.fromarray((map_rc / max(map_rc.max(), 1e-12)).astype(np.float32))
        size = image.shape[1], image.shape[0]
        light = np.asarray(shade.resize(size, Image.Resampling.BICUBIC))
        panel.imshow(grey, cmap="gray", vmin=0, vmax=255)
        panel.imshow(light, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
        panel.set_title(word, fontsize=8, color=figures.INK)
    return figure
