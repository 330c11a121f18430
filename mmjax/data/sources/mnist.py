"""MNIST as its four gzip files lie in a folder: `mnist:/d/mnist?split=test`."""

import gzip
import pathlib

import cv2
import numpy as np

from mmjax import errors
from mmjax.data.sources import columns
from mmjax.errors import UserError

_FILES = {"train": "train", "test": "t10k"}
_BLOCK = 10_000  # rows among which a digit's partner is drawn


def open(
    path: str, split: str = "train", noisy: bool = False, seed: int = 0
) -> columns.Columns:
    """Records have `image` uint8 (28, 28, 3) and `label`.

    split: train (60,000) or test (10,000). noisy: they also have the two views of Wang
    et al. 2015, section 4.2: `rotated` uint8 (28, 28), the image turned by U[-45, 45]
    degrees, and `noisy`, another image of the digit with noise U[0, 1] added to each
    pixel, cut off at 1. Partners are of the same 10,000 rows, so that parts chosen by
    skip= and limit= in whole tens of thousands share no image. seed: of both.
    """
    if split not in _FILES:
        raise UserError(f"mnist split={split!r}: use {' or '.join(_FILES)}")
    folder = pathlib.Path(path).expanduser()
    images = _idx(folder / f"{_FILES[split]}-images-idx3-ubyte.gz", 3)
    labels = _idx(folder / f"{_FILES[split]}-labels-idx1-ubyte.gz", 1)
    arrays = {"image": images, "label": labels.astype(np.int32)}
    if noisy:
        rng = np.random.default_rng([seed, split == "test"])
        arrays["rotated"] = _rotated(images, rng.uniform(-45, 45, len(images)))
        arrays["noisy"] = _noisy(images[_partners(labels, rng)], rng)
    arrays["class_names"] = np.arange(10).astype(str)
    again = open, (path, split, noisy, seed)
    return columns.Columns(f"mnist:{folder}?split={split}", arrays, again=again)


def _idx(path: pathlib.Path, axes: int) -> np.ndarray:
    """The uint8 array of a gzip IDX file."""
    if reason := errors.plain(path):
        raise UserError(f"cannot read {path}: {reason}")
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, gzip.zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    shape = tuple(np.frombuffer(data[4 : 4 + 4 * axes], ">i4").tolist())
    start = 4 + 4 * axes
    if data[:4] != bytes([0, 0, 8, axes]) or len(data) - start != np.prod(shape):
        raise UserError(f"{path} is no IDX file of {axes} axes of bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _rotated(images: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:]
    centre = ((width - 1) / 2, (height - 1) / 2)
    return np.stack(
        [
            cv2.warpAffine(
                x, cv2.getRotationMatrix2D(centre, angle, 1), (width, height)
            )
            for x, angle in zip(images, degrees.tolist(), strict=True)
        ]
    )


def _partners(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every row, another of its block with the same label."""
    partner = np.empty(len(labels), np.int64)
    for start in range(0, len(labels), _BLOCK):
        block = labels[start : start + _BLOCK]
        for label in np.unique(block):
            rows = start + np.flatnonzero(block == label)
            shift = rng.integers(1, max(2, len(rows)), len(rows))
            partner[rows] = rows[(np.arange(len(rows)) + shift) % len(rows)]
    return partner


def _noisy(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = np.empty_like(images)
    for i in range(0, len(images), 1000):
        part = images[i : i + 1000]
        noise = rng.uniform(0, 255, part.shape)
        out[i : i + 1000] = np.round(np.minimum(part + noise, 255))
    return out
