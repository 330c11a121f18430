"""Scenes into pixels: anti-aliased, by signed distance, in plain numpy."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from mmjax.data.shapes.scene import Object, Scene


def render(scene: Scene, size: int) -> np.ndarray:
    """The scene as uint8 (size, size, 3), RGB."""
    image = np.empty((size, size, 3), np.float32)
    image[:] = scene.drawn
    for thing in scene.objects:
        radius, cx, cy = thing.radius * size, thing.x * size, thing.y * size
        x0, x1 = max(int(cx - radius - 1), 0), min(int(cx + radius + 2), size)
        y0, y1 = max(int(cy - radius - 1), 0), min(int(cy + radius + 2), size)
        xs = (np.arange(x0, x1, dtype=np.float32) + (0.5 - cx)) * (1 / radius)
        ys = (np.arange(y0, y1, dtype=np.float32) + (0.5 - cy)) * (1 / radius)
        cover = coverage(thing.shape, xs, ys[:, None], radius, thing.angle)
        patch = image[y0:y1, x0:x1]
        patch += cover[:, :, None] * (np.asarray(thing.drawn, np.float32) - patch)
    return (image + 0.5).astype(np.uint8)


def coverage(
    shape: str, x: np.ndarray, y: np.ndarray, radius: float, angle: float
) -> np.ndarray:
    """How much of each pixel the shape covers, 0..1, of the arguments' joint shape.

    x, y: pixel centres from the object's centre, in radii. radius: in pixels. All
    arguments but the name broadcast.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    distance = DISTANCE[shape](cos * x + sin * y, cos * y - sin * x)
    return (0.5 - distance * radius).clip(0, 1)


def boxes(scene: Scene, size: int) -> np.ndarray:
    """The objects' tight boxes: float32 (objects, 4), (x, y, width, height), pixels."""
    rows = [_box(thing) for thing in scene.objects]
    return np.asarray(rows, np.float32).reshape(-1, 4) * size


def _box(thing: Object) -> tuple[float, float, float, float]:
    cos, sin, r = math.cos(thing.angle), math.sin(thing.angle), thing.radius
    x, y = hull(thing.shape)
    turned_x, turned_y = cos * x - sin * y, sin * x + cos * y
    left, top = turned_x.min(), turned_y.min()
    width, height = turned_x.max() - left, turned_y.max() - top
    return thing.x + r * left, thing.y + r * top, r * width, r * height


@functools.cache
def hull(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners (n,), (n,) of the shape's convex hull at angle 0, in radii."""
    line = np.linspace(-1, 1, 401, dtype=np.float32)
    row, column = np.nonzero(DISTANCE[shape](line, line[:, None]) <= 1e-6)
    corners = cv2.convexHull(np.stack([line[column], line[row]], axis=1))
    x, y = cv2.approxPolyDP(corners, 0.004, closed=True)[:, 0].T
    return x.copy(), y.copy()


# Distance to the shape's edge, negative inside, in radii; y points down.


def _circle(x, y):
    return np.hypot(x, y) - 1


def _square(x, y):
    return np.maximum(abs(x), abs(y)) - 0.707


def _triangle(x, y):
    return np.maximum(y, 0.866 * abs(x) - 0.5 * y) - 0.5


def _star(x, y):
    """A pentagram: the points inside at least four of its five lines."""
    x = abs(x)
    a, b = 0.951 * x, 0.309 * y
    c, d = 0.588 * x, 0.809 * y
    most, second = np.maximum(-y, a - b), np.minimum(-y, a - b)
    for line in (c + d, d - c, -a - b):
        second = np.maximum(second, np.minimum(most, line))
        most = np.maximum(most, line)
    return second - 0.309


def _cross(x, y):
    x, y = abs(x), abs(y)
    return np.maximum(np.maximum(x, y) - 0.94, np.minimum(x, y) - 0.32)


def _heart(x, y):
    """A square on its corner and a disc on each upper side."""
    x = abs(x)
    square = (x + abs(y - 0.222)) * 0.707
    return np.minimum(square, np.hypot(x - 0.389, y + 0.167)) - 0.55


def _ring(x, y):
    return abs(np.hypot(x, y) - 0.76) - 0.24


def _moon(x, y):
    return np.maximum(np.hypot(x, y) - 1, 0.85 - np.hypot(x - 0.5, y))


DISTANCE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "ring": _ring,
    "moon": _moon,
}
