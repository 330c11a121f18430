"""A sheet of images in rows, each row under its caption: samples, reconstructions."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmjax import errors
from mmjax.errors import UserError
from mmjax.report import fonts

GAP, MARGIN, LEAST = 4, 8, 64  # pixels; small images are enlarged to about LEAST
PAPER, INK = (255, 255, 255), (34, 34, 34)


def eight_bit(images: np.ndarray) -> np.ndarray:
    """Floats in [0, 1], clipped there, as uint8 of the same shape."""
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


def draw(
    path: str | pathlib.Path,
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str] = (),
) -> pathlib.Path:
    """Writes a `sheet` as a PNG. Returns the path, its folders made."""
    path, canvas = pathlib.Path(path), sheet(rows, captions)
    with errors.writing(path) as part:
        canvas.save(part)
    return path


def sheet(
    rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str] = ()
) -> Image.Image:
    """Images in rows, as one Pillow image, which a notebook shows.

    Args:
      rows: Lists of images of one size: uint8 (H, W, 3) or (H, W), or floats in [0, 1].
      captions: A line above each row, or none.

    Raises:
      UserError: a row has no images, or captions and rows differ in number.
    """
    if not len(rows) or not all(len(row) for row in rows):
        raise UserError("a sheet of images needs one or more in every row")
    shapes = {np.shape(pixels) for row in rows for pixels in row}
    sizes = {shape[:2] for shape in shapes}
    # (W, 3) is a row of pixels: an image stands where a row of images is meant
    strange = [s for s in shapes if len(s) not in (2, 3) or len(s) == 2 and s[1] == 3]
    if len(sizes) > 1 or strange:
        raise UserError(
            f"a sheet takes rows, lists of images of one size, and has {sorted(shapes)}"
        )
    if isinstance(captions, str):
        raise UserError(f"captions are {captions!r}: give a list, one for each row")
    if len(captions) not in (0, len(rows)):
        raise UserError(f"{len(captions)} captions for {len(rows)} rows of images")
    ((high, across),) = sizes
    zoom = max(1, round(LEAST / high))
    step, head = high * zoom + GAP, 18 if captions else 0
    stride = across * zoom + GAP
    font = fonts.font("".join(captions), 13)
    wide = max(
        [max(map(len, rows)) * stride, *(int(font.getlength(t)) for t in captions)]
    )
    size = wide + 2 * MARGIN, len(rows) * (step + head) + 2 * MARGIN
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for r, row in enumerate(rows):
        y = MARGIN + r * (step + head)
        if captions:
            pen.text((MARGIN, y), captions[r], fill=INK, font=font)
        for c, pixels in enumerate(row):
            pixels = np.asarray(pixels)
            pixels = pixels if pixels.dtype == np.uint8 else eight_bit(pixels)
            large = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
            canvas.paste(Image.fromarray(large), (MARGIN + c * stride, y + head))
    return canvas
