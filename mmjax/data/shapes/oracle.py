"""Scenes out of pixels, with no learned part: the judge of generated shapes.

The background is the border's colour; what differs from it falls into connected
components; least squares explains each as one object, drawn as `render` draws it, or as
two that touch.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import cv2
import numpy as np

from mmjax.data.shapes import oracle_fit
from mmjax.data.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    RGB,
    SIZE_LIMIT,
    SIZES,
    Object,
    Scene,
)

LARGEST = 64  # pixels a side: larger images are averaged down to this
CONTRAST = 38.0  # distance from the background that makes a pixel foreground, 0..441
LEAST = 0.007  # smallest component, as a share of the image
MOST = 4  # components read, the largest
POOR = 0.06  # share of a component's energy left by one object that makes us try two
BETTER = 0.5  # two objects must leave at most this share of what one leaves
# The residual, averaged over 3 x 3 of 32 x 32 pixels, that shows something no scene
# explains: a part cut off, a hole, a stray blob. `benchmarks/oracle_accuracy.py` says
# what it lets pass and what it costs.
STRAY = 0.15
ATTRIBUTES = (
    *("count", "colour", "shape", "size", "relation", "background", "clean", "all"),
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A scene and how far its drawing is from the image, as shares of 255.

    rms: over the whole image. worst: over the 3 x 3 of 32 x 32 pixels where it is
    furthest, less the background's noise.
    """

    scene: Scene
    rms: float
    worst: float


def read(image: np.ndarray) -> Reading:
    """The scene in a square RGB image, uint8 or float in 0..1, 16 pixels or more.

    Objects come in no meaningful order; `score` matches them by what they are. Any
    image gives a reading: one without objects has `objects == ()`, and one that is no
    such scene has a large rms. ValueError on any other array.
    """
    pixels = _pixels(image)
    side = pixels.shape[0]
    ground = _ground(pixels)
    labels, keep = _components(pixels - ground)
    target = (pixels - ground) @ oracle_fit.LUMA_CHROMA
    fits = [fit for k in keep for fit in _fits(target, labels, k)]
    drawn = sum((oracle_fit.drawing(fit, side) for fit in fits), np.zeros(()))
    rest = (target - drawn) @ oracle_fit.TO_RGB
    scene = Scene(
        objects=tuple(_object(fit, ground, side) for fit in fits),
        background=_nearest(ground, BACKGROUNDS),
        rgb=tuple(ground.tolist()),
    )
    square = np.mean(rest**2, axis=2)
    local = cv2.blur(square, (max(3, round(3 * side / 32)),) * 2).max()
    fault = max(0.0, local - _noise(pixels - ground) ** 2)
    rms, worst = (float(np.sqrt(x)) / 255 for x in (square.mean(), fault))
    return Reading(scene, rms=rms, worst=worst)


def score(true: Scene, seen: Reading) -> dict[str, float]:
    """1.0 or 0.0 for each of ATTRIBUTES: is it right, of every object at once?

    The objects are matched in the order that gets most attributes right. With another
    number of objects than the truth, everything but the background is wrong. `clean`
    is whether the scene that was read explains the whole image (STRAY).
    """
    rest = {
        "background": float(true.background == seen.scene.background),
        "clean": float(seen.worst <= STRAY),
    }
    if len(true.objects) != len(seen.scene.objects):
        return dict.fromkeys(ATTRIBUTES, 0.0) | rest
    orders = itertools.permutations(seen.scene.objects)
    right = max(
        (_right(true, order) for order in orders), key=lambda r: sum(r.values())
    )
    right = {"count": 1.0, **right, **rest}
    return right | {"all": min(right.values())}


def _right(true: Scene, order: tuple[Object, ...]) -> dict[str, float]:
    pairs = list(zip(true.objects, order, strict=True))
    right = {
        name: float(all(getattr(t, name) == getattr(s, name) for t, s in pairs))
        for name in ("colour", "shape", "size")
    }
    seen = Scene(objects=order, background=true.background)
    return right | {"relation": float(true.relation == seen.relation)}


def _pixels(image: np.ndarray) -> np.ndarray:
    """float32 (side, side, 3), 0..255, side at most LARGEST."""
    image = np.asarray(image)
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(f"the oracle reads (side, side, 3), not {image.shape}")
    if image.shape[0] < 16 or not (floating or image.dtype == np.uint8):
        raise ValueError(
            "the oracle reads uint8, or float in 0..1, of 16 pixels or more a side, "
            f"not {image.dtype} of {image.shape[0]}"
        )
    pixels = image.astype(np.float32)
    if floating:
        pixels = np.nan_to_num(pixels).clip(0, 1) * 255
    if image.shape[0] > LARGEST:
        pixels = cv2.resize(pixels, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA)
    return pixels


def _ground(pixels: np.ndarray) -> np.ndarray:
    """The background's colour (3,): the border's median, then the mean near it."""
    first = np.median(pixels[_border(pixels.shape[0])], axis=0)
    near = np.abs(pixels - first).max(axis=2) < CONTRAST / 2
    return pixels[near].mean(axis=0) if near.any() else first


@functools.cache
def _border(side: int) -> np.ndarray:
    border = np.ones((side, side), bool)
    border[1:-1, 1:-1] = False
    return border


def _components(target: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """A map (side, side) of component numbers, and those large enough to be objects."""
    side = target.shape[0]
    if _noise(target) > 4:
        target = cv2.GaussianBlur(target, (0, 0), 0.7 * side / 32)
    mask = (np.linalg.norm(target, axis=2) > CONTRAST).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")[:MOST]
    return labels, [int(k) + 1 for k in order if areas[k] >= LEAST * side * side]


def _noise(target: np.ndarray) -> float:
    """Sigma of a channel of the background, from the border's median deviation."""
    return 1.48 * float(np.median(np.abs(target[_border(target.shape[0])])))


def _fits(target: np.ndarray, labels: np.ndarray, k: int) -> list[oracle_fit.Fit]:
    """Component k as one object, or as two where those leave much less of it."""
    side = target.shape[0]
    window = _window(target, labels == k, (labels != k) & (labels != 0))
    one = oracle_fit.explain(window)
    noise = window.target.size * _noise(target) ** 2
    if one.left - noise < POOR * float(np.sum(window.target**2)):
        return [one]
    halves = _halves(target, labels == k)
    if min(half.sum() for half in halves) < LEAST / 2 * side * side:
        return [one]
    first = oracle_fit.explain(_window(target, halves[0], halves[1]))
    for _ in range(2):  # each in turn explains what the other leaves
        rest = target - oracle_fit.drawing(first, side)
        second = oracle_fit.explain(_window(rest, halves[1], labels * 0 > 0))
        rest = target - oracle_fit.drawing(second, side)
        first = oracle_fit.explain(_window(rest, halves[0], labels * 0 > 0))
    drawn = oracle_fit.drawing(first, side) + oracle_fit.drawing(second, side)
    near = _window(target - drawn, labels == k, (labels != k) & (labels != 0))
    two_left = float(np.sum(near.target**2))
    return [first, second] if two_left < BETTER * one.left else [one]


def _halves(target: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The component in two, by 2-means on place and colour; masks (side, side)."""
    side = target.shape[0]
    rows, columns = np.nonzero(inside)
    place = np.stack([columns, rows], axis=1) / side
    features = np.concatenate([2 * place, target[rows, columns] / 255], axis=1)
    features = features.astype(np.float32)
    start = features - features.mean(axis=0)
    axis = np.linalg.svd(start, full_matrices=False)[2][0]
    second = start @ axis > 0
    for _ in range(8):
        if second.all() or not second.any():
            break
        middles = features[~second].mean(axis=0), features[second].mean(axis=0)
        far = [np.sum((features - middle) ** 2, axis=1) for middle in middles]
        second = far[1] < far[0]
    masks = np.zeros((2, side, side), bool)
    masks[second.astype(int), rows, columns] = True
    return masks[0], masks[1]


def _window(
    target: np.ndarray, inside: np.ndarray, others: np.ndarray
) -> oracle_fit.Window:
    """The surroundings of `inside`, without the pixels of `others` and next to them."""
    side = target.shape[0]
    rows, columns = np.nonzero(inside)
    pad = 2 + side // 32
    y0, y1 = max(rows.min() - pad, 0), min(rows.max() + pad + 1, side)
    x0, x1 = max(columns.min() - pad, 0), min(columns.max() + pad + 1, side)
    here = slice(y0, y1), slice(x0, x1)
    taken = cv2.dilate(others[here].astype(np.uint8), np.ones((3, 3), np.uint8))
    weight = ((taken == 0) | inside[here]).astype(np.float32)
    return oracle_fit.Window(
        target=target[here] * weight[:, :, None],
        weight=weight,
        x=np.arange(x0, x1, dtype=np.float32) + 0.5,
        y=np.arange(y0, y1, dtype=np.float32) + 0.5,
        side=side,
    )


def _object(fit: oracle_fit.Fit, ground: np.ndarray, side: int) -> Object:
    rgb = ground + fit.colour @ oracle_fit.TO_RGB
    x, y, radius, angle = (float(v) for v in fit.pose)
    small, big = SIZES
    return Object(
        colour=_nearest(rgb, COLOURS),
        shape=fit.shape,
        size=small if radius / side < SIZE_LIMIT else big,
        x=x / side,
        y=y / side,
        radius=radius / side,
        angle=angle,
        rgb=tuple(rgb.clip(0, 255).tolist()),
    )


def _nearest(rgb: np.ndarray, palette: dict[str, RGB]) -> str:
    return min(palette, key=lambda name: float(np.sum((rgb - palette[name]) ** 2)))
