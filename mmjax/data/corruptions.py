"""Images as they come out of a worse camera, a harder codec or another hand.

Five severities each. `noise`, `blur` and `jpeg` have the constants of ImageNet-C's code
(Hendrycks and Dietterich 2019, at 224 px; the radius of a blur is a share of the
image's side, so that it means the same at any size). `gray`, `posterise` and
`sketch` change the style and leave the shapes; their strengths are ours.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from mmjax import schema
from mmjax.errors import UserError

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of a range of 1
_BLUR = (1, 2, 3, 4, 6)  # standard deviation in pixels, of 224
_JPEG = (25, 18, 15, 10, 7)  # Pillow's quality
_BITS = (5, 4, 3, 2, 1)  # a channel keeps
_LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601


def apply(name: str, image: np.ndarray, severity: int, seed: int) -> np.ndarray:
    """The image under a shift.

    Args:
      name: one of SHIFTS. image: uint8 (H, W, 3). severity: 1 to 5.
      seed: of what is random; the same one gives the same image.

    Raises:
      UserError: no such shift or severity.
    """
    check(name, severity)
    changed = SHIFTS[name](image, severity, np.random.default_rng(seed))
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def check(name: str, severity: int) -> None:
    """Raises UserError unless there is such a shift and severity."""
    if name not in SHIFTS:
        hint = schema.suggest(name, SHIFTS)
        raise UserError(f"no shift is called {name!r}{hint}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: use 1 (weak) to 5 (strong)")


def _noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0.0, 255 * _NOISE[severity - 1], image.shape)


def _blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    sigma = _BLUR[severity - 1] * min(image.shape[:2]) / 224
    return ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))


def _jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_JPEG[severity - 1])
    return np.asarray(Image.open(file))


def _gray(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return _towards(image, (image @ _LUMA)[..., None], severity)


def _posterise(
    image: np.ndarray, severity: int, rng: np.random.Generator
) -> np.ndarray:
    """Each channel rounded to the middle of one of 2^bits bins."""
    width = 256 >> _BITS[severity - 1]
    return image // width * width + (width - 1) / 2


def _sketch(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Towards dark edges on white: Sobel's gradient of the luma, its largest black."""
    luma = image @ _LUMA
    edges = np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))
    drawn = 255 * (1 - edges / max(float(edges.max()), 1e-6))
    return _towards(image, drawn[..., None], severity)


def _towards(image: np.ndarray, other: np.ndarray, severity: int) -> np.ndarray:
    """A blend that is all `other` at the last severity."""
    share = severity / SEVERITIES[-1]
    return (1 - share) * image + share * other


SHIFTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "gray": _gray,
    "posterise": _posterise,
    "sketch": _sketch,
}
