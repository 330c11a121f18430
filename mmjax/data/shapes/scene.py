"""The world of the shapes data: its words, its scenes and how one is drawn by lot.

Lengths are fractions of the image's side, x points right and y down, angles are in
radians. Every shape lies inside the circle of its object's radius, so that circles
apart are shapes apart.
"""

from __future__ import annotations

import dataclasses

import numpy as np

RGB = tuple[float, float, float]  # 0..255

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "moon")
COLOURS: dict[str, RGB] = {
    "red": (214, 36, 40),
    "orange": (246, 138, 28),
    "yellow": (244, 226, 44),
    "green": (36, 160, 62),
    "cyan": (44, 208, 216),
    "blue": (38, 72, 222),
    "purple": (132, 44, 184),
    "pink": (248, 130, 192),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (16, 16, 16),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "brown": (92, 62, 36),
}
SIZES = {"small": (0.130, 0.155), "big": (0.190, 0.220)}  # radius from, to
SIZE_LIMIT = 0.1725  # the radius between the words
RELATIONS = ("left", "right", "above", "below")  # the first object's, to the second
OPPOSITE = dict(zip(RELATIONS, ("right", "left", "below", "above"), strict=True))

# The tenth of the pairs that only the split `unseen` shows. No colour and no shape
# comes twice, so that each is met in training with seven partners.
UNSEEN = (
    ("red", "star"),
    ("orange", "ring"),
    ("green", "heart"),
    ("cyan", "triangle"),
    ("blue", "circle"),
    ("pink", "cross"),
)
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEEN = tuple(pair for pair in PAIRS if pair not in UNSEEN)
CLASS_NAMES = tuple(f"{colour} {shape}" for colour, shape in PAIRS)

MARGIN = 0.03  # between an object's circle and the edge
GAP = 0.05  # at least, between two objects' circles
TILT = 0.17  # largest angle, about 10 degrees
TINT = 10.0  # largest change of a colour channel, of 255
DRAWS = 40  # uniform numbers that one scene and its captions use; captions from 26
CAPTION_DRAWS = 26


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """One shape. `x`, `y`: the centre of its circle; `rgb`: the colour as drawn."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    rgb: RGB | None = None  # None: the palette's

    @property
    def label(self) -> int:
        """The class, colour * 8 + shape: an index into CLASS_NAMES."""
        return _PAIR_INDEX[self.colour, self.shape]

    @property
    def drawn(self) -> RGB:
        """The colour of its pixels: `rgb`, or that of its name."""
        return COLOURS[self.colour] if self.rgb is None else self.rgb


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A background and its objects: one or two when drawn, any number when read."""

    objects: tuple[Object, ...]
    background: str
    rgb: RGB | None = None  # the background as drawn; None: the palette's

    @property
    def relation(self) -> str | None:
        """Where the first object lies from the second; None unless there are two."""
        if len(self.objects) != 2:
            return None
        first, second = self.objects
        dx, dy = first.x - second.x, first.y - second.y
        if abs(dx) >= abs(dy):
            return "left" if dx < 0 else "right"
        return "above" if dy < 0 else "below"

    @property
    def drawn(self) -> RGB:
        """The background of its pixels: `rgb`, or that of its name."""
        return BACKGROUNDS[self.background] if self.rgb is None else self.rgb


_PAIR_INDEX = {pair: i for i, pair in enumerate(PAIRS)}
_BACKGROUND_NAMES = tuple(BACKGROUNDS)
_SIZE_NAMES = tuple(SIZES)


def draws(seed: int, stream: int, index: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1): float64 (n, DRAWS) for `index` (n,), by hashing.

    SplitMix64 (Steele et al. 2014) on (seed, stream, index): the same numbers under
    every numpy version, and a thousand rows cost little more than one.
    """
    root = _mix(np.asarray([seed], np.uint64) * _GOLDEN + np.uint64(stream + 1))
    row = _mix(root + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return (_mix(row[:, None] + _STEPS) >> np.uint64(11)) * 2.0**-53


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STEPS = np.arange(1, DRAWS + 1, dtype=np.uint64) * _GOLDEN


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample(u: list[float], *, unseen: bool, objects: int | None = None) -> Scene:
    """The scene that `u` (one row of `draws`, as a list) decides.

    objects: 1, 2 or None for either with equal chance. unseen: one object, either of
    two, is of an UNSEEN pair (the other may be); otherwise none is.
    """
    background = _BACKGROUND_NAMES[int(u[0] * len(_BACKGROUND_NAMES))]
    rgb = _tinted(BACKGROUNDS[background], u[1:4])
    count = objects or (1 if u[4] < 0.5 else 2)
    pairs = _pairs(u, unseen=unseen, count=count)
    sizes = [_SIZE_NAMES[int(v * len(_SIZE_NAMES))] for v in u[8 : 8 + count]]
    radii = [
        SIZES[s][0] + v * (SIZES[s][1] - SIZES[s][0])
        for s, v in zip(sizes, u[10:12], strict=False)
    ]
    if count == 1:
        room = 1 - 2 * (MARGIN + radii[0])
        centres = [tuple(MARGIN + radii[0] + v * room for v in u[12:14])]
    else:
        centres = _place(radii, u[12:18])
    things = tuple(
        Object(
            colour=colour,
            shape=shape,
            size=sizes[k],
            x=centres[k][0],
            y=centres[k][1],
            radius=radii[k],
            angle=TILT * (2 * u[18 + k] - 1),
            rgb=_tinted(COLOURS[colour], u[20 + 3 * k : 23 + 3 * k]),
        )
        for k, (colour, shape) in enumerate(pairs)
    )
    return Scene(objects=things, background=background, rgb=rgb)


def _tinted(rgb: RGB, u: list[float]) -> RGB:
    moved = (c + TINT * (2 * v - 1) for c, v in zip(rgb, u, strict=True))
    return tuple(min(max(c, 0.0), 255.0) for c in moved)


def _pairs(u: list[float], *, unseen: bool, count: int) -> list[tuple[str, str]]:
    """`count` different (colour, shape) pairs."""
    pool = UNSEEN if unseen else SEEN
    first = pool[int(u[5] * len(pool))]
    if count == 1:
        return [first]
    rest = [p for p in (PAIRS if unseen else SEEN) if p != first]
    second = rest[int(u[6] * len(rest))]
    return [first, second] if not unseen or u[7] < 0.5 else [second, first]


def _place(radii: list[float], u: list[float]) -> list[tuple[float, float]]:
    """Centres of two objects apart along one axis, by at least twice the other."""
    relation = RELATIONS[int(u[0] * len(RELATIONS))]
    free = 1 - 2 * MARGIN - GAP - 2 * (radii[0] + radii[1])
    before, after = sorted((u[1] * free, u[2] * free))
    swapped = relation in ("right", "below")
    near, far = reversed(radii) if swapped else radii
    along = [MARGIN + near + before, MARGIN + 2 * near + GAP + after + far]
    reach = (along[1] - along[0]) / 2
    low, high = MARGIN + near, 1 - MARGIN - near
    across = [low + u[3] * (high - low)]
    low = max(MARGIN + far, across[0] - reach)
    high = min(1 - MARGIN - far, across[0] + reach)
    across.append(low + u[4] * (high - low))
    centres = list(zip(along, across, strict=True))
    if relation in ("above", "below"):
        centres = [(x, y) for y, x in centres]
    return centres[::-1] if swapped else centres
