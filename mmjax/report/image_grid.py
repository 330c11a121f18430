"""A PNG of pictures in rows, each row under its caption: samples, reconstructions."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmjax.errors import UserError

GAP, MARGIN, LEAST = 4, 8, 64  # pixels; small pictures are enlarged to about LEAST
PAPER, INK = (255, 255, 255), (34, 34, 34)


def draw(
    path: str | pathlib.Path,
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str] = (),
) -> pathlib.Path:
    """Writes a PNG of `rows`, each a list of uint8 (S, S, 3) pictures of one size.

    captions: a line above each row, or none. Returns the path, its folders made.

    Raises:
      UserError: no pictures, or another number of captions than of rows.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, captions).save(path)
    return path


def sheet(
    rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str] = ()
) -> Image.Image:
    """The picture that `draw` writes."""
    if not rows or not all(len(row) for row in rows):
        raise UserError("a sheet of pictures needs one or more in every row")
    if len(captions) not in (0, len(rows)):
        raise UserError(f"{len(captions)} captions for {len(rows)} rows of pictures")
    side = rows[0][0].shape[0]
    zoom = max(1, round(LEAST / side))
    font = ImageFont.load_default(size=13)
    head = 18 if captions else 0
    wide = max(
        [max(map(len, rows)) * (side * zoom + GAP)]
        + [int(font.getlength(text)) for text in captions]
    )
    tall = len(rows) * (side * zoom + GAP + head)
    canvas = Image.new("RGB", (wide + 2 * MARGIN, tall + 2 * MARGIN), PAPER)
    pen, y = ImageDraw.Draw(canvas), MARGIN
    for r, row in enumerate(rows):
        if captions:
            pen.text((MARGIN, y), captions[r], fill=INK, font=font)
        for c, pixels in enumerate(row):
            large = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1)
            place = (MARGIN + c * (side * zoom + GAP), y + head)
            canvas.paste(Image.fromarray(large), place)
        y += side * zoom + GAP + head
    return canvas
