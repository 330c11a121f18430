"""The grid that every method here walks: costs of frame pairs, bands, anti-diagonals.

Legend: b pairs of sequences, n and m frames of the first and the second, d columns,
k = i + j the anti-diagonal of cell (i, j). Pairs lie in the last axis, so that a step
from one anti-diagonal to the next is one pass over contiguous memory.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError

BIG = 1e30  # the cost of a cell that no path may enter; sums of it stay finite


@dataclasses.dataclass(frozen=True)
class Band:
    """The cells that a path may enter.

    kind: "sakoe_chiba", |i - j| <= width (Sakoe and Chiba 1978), or "itakura", the
      parallelogram of slopes 1 / width to width between both ends (Itakura 1975).
    width: frames, or the largest slope, which is more than 1.
    """

    kind: Literal["sakoe_chiba", "itakura"]
    width: float

    def __post_init__(self) -> None:
        if self.kind not in ("sakoe_chiba", "itakura"):
            raise UserError(f"band {self.kind!r}: use 'sakoe_chiba' or 'itakura'")
        low, term = (1, "radius") if self.kind == "sakoe_chiba" else (1 + 1e-6, "slope")
        if not self.width >= low:
            raise UserError(
                f"{self.kind} {term} {self.width}: use {round(low)} or more"
            )

    def columns(self, i: Any, n: Any, m: Any, xp: Any = jnp) -> tuple[Any, Any]:
        """First and last j that row i of an n x m grid has; first > last for none."""
        if self.kind == "sakoe_chiba":
            low, high = i - self.width, i + self.width
        else:
            slope, left = self.width, n - 1 - i
            low = xp.ceil(xp.maximum(i / slope, m - 1 - slope * left) - 1e-6)
            high = xp.floor(xp.minimum(i * slope, m - 1 - left / slope) + 1e-6)
        return xp.maximum(low, 0), xp.minimum(high, m - 1)

    def check(self, n: int, m: int) -> None:
        """UserError where the band does not bind, or no path stays inside it."""
        lengths = f"sequences of {n} and {m} frames"
        if self.kind == "sakoe_chiba" and self.width >= min(n, m):
            raise UserError(
                f"{lengths} are shorter than a band of radius {self.width:g}: use a "
                f"radius of {min(n, m) - 1} or less, or no band"
            )
        low_n, high_n = self.columns(np.arange(n), n, m, np)
        broken = (low_n > high_n).any() or (low_n[1:] > high_n[:-1] + 1).any()
        if not broken and low_n[0] == 0 and high_n[-1] == m - 1:
            return
        if self.kind == "sakoe_chiba":
            fix = f"radius {self.width:g}: use {abs(n - m)} or more"
        else:
            fix = f"slope {self.width:g}: use more than {max(n, m) / min(n, m):.2f}"
        raise UserError(f"no path joins the ends of {lengths} within {fix}")


def squared_distances(
    x_bnd: jax.Array, y_bmd: jax.Array, *, exact: bool = False
) -> jax.Array:
    """(n, m, b) of the squared Euclidean distances of all frames.

    exact: sums of squared differences, which are 0 for equal frames. Without it they
      are |x|^2 + |y|^2 - 2 x y about the mean frame, by a product of matrices: twice as
      fast, and off by some 1e-7 of |x|^2 in float32.
    """
    if exact:
        x_n1db, y_mdb = x_bnd.transpose(1, 2, 0)[:, None], y_bmd.transpose(1, 2, 0)
        return jnp.square(x_n1db - y_mdb).sum(2)
    middle_b1d = jax.lax.stop_gradient(x_bnd.mean(1, keepdims=True))
    x_bnd, y_bmd = x_bnd - middle_b1d, y_bmd - middle_b1d
    norms_bnm = jnp.square(x_bnd).sum(2)[..., None] + jnp.square(y_bmd).sum(2)[:, None]
    apart_bnm = norms_bnm - 2 * jnp.einsum("bnd,bmd->bnm", x_bnd, y_bmd)
    return jnp.maximum(apart_bnm, 0).transpose(1, 2, 0)


_TOGETHER = 64  # pairs whose tables stay in a CPU's cache


def in_parts(run: Callable, arrays: Any) -> Any:
    """`run` of arrays with b rows, as many at a time as a cache holds; b rows again.

    Every so-manieth row goes together, so that rows of all devices do.
    """
    b = len(jax.tree.leaves(arrays)[0])
    if b <= _TOGETHER or b % _TOGETHER:
        return run(arrays)
    parts = jax.tree.map(
        lambda x: x.reshape(_TOGETHER, -1, *x.shape[1:]).swapaxes(0, 1), arrays
    )
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), jax.lax.map(run, parts)
    )


def inside(
    cost_nmb: jax.Array, n_b: jax.Array, m_b: jax.Array, band: Band | None
) -> jax.Array:
    """Costs with BIG in the cells outside the band."""
    if band is None:
        return cost_nmb
    n, m, _ = cost_nmb.shape
    low_nb, high_nb = band.columns(jnp.arange(n)[:, None], n_b, m_b)
    j_m1 = jnp.arange(m)[:, None]
    legal_nmb = (j_m1 >= low_nb[:, None]) & (j_m1 <= high_nb[:, None])
    return jnp.where(legal_nmb, cost_nmb, BIG)


def skewed(cost_nmb: jax.Array, fill: float = BIG) -> jax.Array:
    """(n, k, b) with cell (i, j) at [i, i + j], and `fill` where there is none."""
    n, m, b = cost_nmb.shape
    wide = jnp.pad(cost_nmb, ((0, 0), (0, n), (0, 0)), constant_values=fill)
    return wide.reshape(n * (n + m), b)[:-n].reshape(n, n + m - 1, b)


def straight(skewed_nkb: jax.Array) -> jax.Array:
    """The inverse of `skewed`: (n, m, b)."""
    n, k, b = skewed_nkb.shape
    flat = jnp.pad(skewed_nkb.reshape(n * k, b), ((0, n), (0, 0)))
    return flat.reshape(n, k + 1, b)[:, : k + 1 - n]


def shifted(rows_nb: jax.Array, first: jax.Array | float) -> jax.Array:
    """Row i - 1 at row i; row 0 is `first`."""
    return jnp.pad(rows_nb[:-1], ((1, 0), (0, 0)), constant_values=first)


def lengths(x_bnd: jax.Array, n_b: jax.Array | None) -> jax.Array:
    """Frames that count, int32 (b,); all where none are given."""
    return jnp.full(x_bnd.shape[:1], x_bnd.shape[1]) if n_b is None else n_b
