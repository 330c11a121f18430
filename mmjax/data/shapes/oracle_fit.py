"""One object by least squares: the shape, pose, blur and colour that explain a window.

Legend: n candidates, h x w pixels of a window, p = h w. Colours here are (luma, blue
difference, red difference), JPEG's, because JPEG blurs the last two more than the first
and a fit that knows so reads small shapes that one in RGB does not.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from mmjax.data.shapes import render
from mmjax.data.shapes.scene import SHAPES, TILT

# From RGB, JPEG's matrix (ITU-T T.871); white noise stays nearly white.
LUMA_CHROMA = np.array(
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]],
    np.float32,
).T
TO_RGB = np.linalg.inv(LUMA_CHROMA)
GROUPS = (slice(0, 1), slice(1, 3))  # luma, chroma

Blur = tuple[float, float]  # Gaussian sigmas of luma and chroma, in pixels
SHARP: Blur = (0.5, 0.5)  # of the coarse search
SIGMAS = (0.0, 0.5, 0.8, 1.1, 1.5, 2.0)  # tried, for luma and for chroma
FINALISTS = 5  # shapes refined, of the eight
HOPELESS = 4.0  # times what the best start leaves: starts that leave more are dropped
SECONDS = 2  # finalists refined a second time, with the blur chosen anew
STEPS = 2  # Gauss-Newton steps of a refinement
RADII = (0.10, 0.26)  # bounds of the fit, as a share of the image
ANGLES = np.linspace(-TILT, TILT, 5)
SCALES = np.array([0.85, 1.0, 1.12])
DELTA = np.array([0.1, 0.1, 0.1, 0.04], np.float32)  # x, y, radius, angle: slopes
STRIDE = np.array([1.0, 1.0, 1.0, 0.15], np.float32)  # the longest step


@dataclasses.dataclass(frozen=True)
class Window:
    """What is to be explained: the image less its background, around an object."""

    target: np.ndarray  # float32 (h, w, 3), luma and chroma, times weight
    weight: np.ndarray  # float32 (h, w): 0 where another object may be
    x: np.ndarray  # float32 (w,), pixel centres
    y: np.ndarray  # float32 (h,)
    side: int  # of the image


@dataclasses.dataclass(frozen=True)
class Fit:
    """A candidate, and the squared error that it leaves in its window."""

    shape: str
    pose: np.ndarray  # (4,): x, y, radius in pixels, angle
    blur: Blur
    colour: np.ndarray  # (3,) luma and chroma, relative to the background
    left: float


def explain(window: Window) -> Fit:
    """The object that leaves least of the window."""
    starts = _starts(window)
    limit = HOPELESS * starts[0][0] + 1e-3 * float(np.sum(window.target**2))
    hopeful = [start for start in starts[:FINALISTS] if start[0] <= limit]
    fits = [_refine(shape, pose, window) for _, shape, pose in hopeful]
    fits.sort(key=lambda fit: fit.left)
    again = [_refine(fit.shape, fit.pose, window) for fit in fits[:SECONDS]]
    return min(fits + again, key=lambda fit: fit.left)


def drawing(fit: Fit, side: int) -> np.ndarray:
    """The fit over the whole image: (side, side, 3), less the background."""
    line = np.arange(side, dtype=np.float32) + 0.5
    whole = Window(np.empty(0), np.ones((side, side), np.float32), line, line, side)
    cover_gnp = _soften(_cover(fit.shape, fit.pose[None], whole), whole, fit.blur)
    luma, chroma = (flat.reshape(side, side, 1) for flat in cover_gnp)
    return np.concatenate([luma, chroma, chroma], axis=2) * fit.colour


def _starts(window: Window) -> list[tuple[float, str, np.ndarray]]:
    """What each shape leaves at best on a small grid of poses, the shape and that pose
    (4,); the best shape first.

    The area and the centroid of what is there give each shape's radius and centre.
    """
    strength = np.linalg.norm(window.target, axis=2)
    core = strength >= np.quantile(strength[strength >= strength.max() / 3], 0.6)
    colour = window.target[core].mean(axis=0)
    alpha = (window.target @ colour / (colour @ colour + 1e-3)).clip(0, 1)
    alpha[alpha < 0.15] = 0
    area = max(float(alpha.sum()), 1.0)
    mid = np.array([alpha.sum(0) @ window.x, alpha.sum(1) @ window.y]) / area
    angle, scale = (grid.ravel() for grid in np.meshgrid(ANGLES, SCALES))
    cos, sin = np.cos(angle), np.sin(angle)
    starts = []
    for shape in SHAPES:
        size, (dx, dy) = moments(shape)
        radius = scale * np.sqrt(area / size)
        x, y = (
            mid[0] - radius * (cos * dx - sin * dy),
            mid[1] - radius * (sin * dx + cos * dy),
        )
        poses = _bounded(np.stack([x, y, radius, angle], axis=1), window.side)
        cover_gnp = _soften(_cover(shape, poses, window), window, SHARP)
        left, _ = _left(cover_gnp, window)
        best = int(np.argmin(left))
        starts.append((float(left[best]), shape, poses[best]))
    return sorted(starts, key=lambda start: start[0])


@functools.cache
def moments(shape: str) -> tuple[float, tuple[float, float]]:
    """Area and centroid at angle 0, in radii."""
    line = np.linspace(-1, 1, 401)
    rows, columns = np.nonzero(render.DISTANCE[shape](line, line[:, None]) <= 0)
    middle = (float(line[columns].mean()), float(line[rows].mean()))
    return len(rows) * (2 / 400) ** 2, middle


def _refine(shape: str, pose: np.ndarray, window: Window) -> Fit:
    """Gauss-Newton on the pose, after choosing the blur; the colour solves its own
    least squares at each step."""
    blur = _blur(_cover(shape, pose[None], window), window)
    best = Fit(shape, pose, blur, np.zeros(3), np.inf)
    for step in range(STEPS + 1):
        poses = pose + np.concatenate([np.zeros((1, 4), np.float32), np.diag(DELTA)])
        last = step == STEPS
        cover = _cover(shape, poses[:1] if last else poses, window)
        cover_gnp = _soften(cover, window, blur)
        left, colours = _left(cover_gnp[:, :1], window)
        if left[0] < best.left:
            best = Fit(shape, pose, blur, colours[0], float(left[0]))
        if not last:
            move = _step(cover_gnp, window, colours[0])
            pose = _bounded(pose + move, window.side)
    return best


def _blur(cover_1hw: np.ndarray, window: Window) -> Blur:
    """The sigmas, for luma and for chroma, that leave least."""
    h, w = cover_1hw.shape[1:]
    rows, columns = (np.stack([_smoother(n, s) for s in SIGMAS]) for n in (h, w))
    cover_nhw = rows @ cover_1hw @ columns.transpose(0, 2, 1) * window.weight
    cover_np = cover_nhw.reshape(len(SIGMAS), -1)
    best = [int(np.argmin(_lost(cover_np, window, group)[0])) for group in GROUPS]
    return SIGMAS[best[0]], SIGMAS[best[1]]


def _step(cover_gnp: np.ndarray, window: Window, colour: np.ndarray) -> np.ndarray:
    """The pose's change (4,), from its cover and those DELTA away; a fifth unknown,
    dropped, is the colour's strength."""
    normal, right = np.eye(5) * 1e-3, np.zeros(5)
    total = colour @ colour + 1e-3
    for flat, group in zip(cover_gnp, GROUPS, strict=True):
        part = colour[group]
        slopes = np.concatenate([(flat[1:] - flat[0]) / DELTA[:, None], flat[:1]])
        wanted = (window.target[:, :, group] @ part).ravel()
        normal += slopes @ slopes.T * (part @ part / total)
        right += slopes @ (wanted - flat[0] * (part @ part)) / total
    normal[np.diag_indices(5)] *= 1.02
    return np.linalg.solve(normal, right)[:4].clip(-STRIDE, STRIDE)


def _bounded(pose: np.ndarray, side: int) -> np.ndarray:
    """The pose (..., 4) held to what a scene can show, as float32."""
    low = np.array([0, 0, RADII[0] * side, -1.3 * TILT])
    high = np.array([side, side, RADII[1] * side, 1.3 * TILT])
    return pose.clip(low, high).astype(np.float32)


def _cover(shape: str, poses: np.ndarray, window: Window) -> np.ndarray:
    """Coverage (n, h, w) of the window for poses (n, 4)."""
    x, y, radius, angle = (poses[:, k, None, None] for k in range(4))
    x, y = (window.x - x) / radius, (window.y[:, None] - y) / radius
    return render.coverage(shape, x, y, radius, angle)


def _soften(cover_nhw: np.ndarray, window: Window, blur: Blur) -> np.ndarray:
    """The cover blurred and weighted: (2, n, p), for luma and for chroma."""
    h, w = cover_nhw.shape[1:]
    out = []
    for sigma in dict.fromkeys(blur):
        soft = cover_nhw
        if sigma:
            soft = _smoother(h, sigma) @ cover_nhw @ _smoother(w, sigma).T
        out.append((soft * window.weight).reshape(len(soft), -1))
    return np.stack([out[0], out[-1]])


@functools.lru_cache(maxsize=1024)
def _smoother(length: int, sigma: float) -> np.ndarray:
    """A Gaussian blur of one axis, as a matrix (length, length); none at sigma 0."""
    steps = np.arange(length)
    matrix = np.exp(-0.5 * ((steps - steps[:, None]) / max(sigma, 1e-3)) ** 2)
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def _left(cover_gnp: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Squared error (n,) of each candidate in its best colour; the colours (n, 3)."""
    luma, chroma = (
        _lost(cover_np, window, group)
        for cover_np, group in zip(cover_gnp, GROUPS, strict=True)
    )
    return luma[0] + chroma[0], np.concatenate([luma[1], chroma[1]], axis=1)


def _lost(
    cover_np: np.ndarray, window: Window, group: slice
) -> tuple[np.ndarray, np.ndarray]:
    """`_left` in the channels of `group` alone."""
    target_pc = window.target[:, :, group].reshape(cover_np.shape[1], -1)
    dots_nc = cover_np @ target_pc
    norm_n = np.einsum("np,np->n", cover_np, cover_np) + 1e-3
    colour_nc = dots_nc / norm_n[:, None]
    return np.vdot(target_pc, target_pc) - (dots_nc * colour_nc).sum(axis=1), colour_nc
