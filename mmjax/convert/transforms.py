"""How arrays change shape between a torch layout and ours, both ways.

A form takes the source's arrays (one, or the parts of one) to our array and back:
`save(load(parts)) == parts` to the last bit, for nothing is computed, only moved.
Torch keeps dense kernels as (out, in) and convolutions as (out, in, h, w).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Form:
    """`load(parts) -> ours` and `save(ours) -> parts`."""

    load: Callable[[Arrays], np.ndarray]
    save: Callable[[np.ndarray], list[np.ndarray]]


def one(
    load: Callable[[np.ndarray], np.ndarray], save: Callable[[np.ndarray], np.ndarray]
) -> Form:
    """A form of a single source array."""
    return Form(lambda parts: load(parts[0]), lambda ours: [save(ours)])


def _require(a: np.ndarray, fits: bool) -> np.ndarray:
    if not fits:
        raise ValueError(f"shape {a.shape} does not fit")
    return a


def _patch_conv(a: np.ndarray) -> np.ndarray:
    side = round((a.shape[0] / 3) ** 0.5)
    return a.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


SAME = one(lambda a: a, lambda a: a)
DENSE = one(np.transpose, np.transpose)  # (out, in) and (in, out)
CONV = one(  # (out, in, h, w) and (h, w, in, out)
    lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)
POINT = one(  # a 1x1 convolution is a dense map: (out, in, 1, 1) and (in, out)
    lambda a: _require(a, a.ndim == 4 and a.shape[2:] == (1, 1))[:, :, 0, 0].T,
    lambda a: a.T[:, :, None, None],
)
PATCHES = one(  # (out, 3, p, p), of stride p, and a kernel of tiles (p * p * 3, out)
    lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]), _patch_conv
)


def squeezed(axes: int) -> Form:
    """An array whose first `axes` axes have length 1 and are left out in ours."""
    return one(
        lambda a: _require(a, set(a.shape[:axes]) == {1}).reshape(a.shape[axes:]),
        lambda a: a.reshape((1,) * axes + a.shape),
    )


VECTOR = one(  # (1,) and ()
    lambda a: _require(a, a.size == 1).reshape(()), lambda a: a.reshape(1)
)


def joined(parts: int | Sequence[int], each: Form = SAME) -> Form:
    """Several arrays, each through `each`, side by side on the last axis.

    parts: how many, of one size; or their sizes, as multiples of a common one. The
    fused query, key and value kernel is `joined(3, DENSE)`; its bias `joined(3)`.
    """
    sizes = (1,) * parts if isinstance(parts, int) else tuple(parts)

    def load(arrays: Arrays) -> np.ndarray:
        ours = [each.load([a]) for a in arrays]
        unit = ours[0].shape[-1] // sizes[0]
        if [a.shape[-1] for a in ours] != [unit * size for size in sizes]:
            raise ValueError(f"sizes are not as {sizes}")
        return np.concatenate(ours, -1)

    def save(ours: np.ndarray) -> list[np.ndarray]:
        cuts = np.cumsum(sizes)[:-1] * (ours.shape[-1] // sum(sizes))
        return [each.save(part)[0] for part in np.split(ours, cuts, axis=-1)]

    return Form(load, save)
