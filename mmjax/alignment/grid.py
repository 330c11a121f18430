"""The grid that every method here walks: costs of frame pairs, bands, anti-diagonals.

Legend: b pairs of sequences, n and m frames of the first and the second, d columns,
k = i + j the anti-diagonal of cell (i, j). Pairs lie in the last axis, so that a step
from one anti-diagonal to the next is one pass over contiguous memory.
"""

import dataclasses
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


@jax.custom_vjp
def squared_distances(x_bnd: jax.Array, y_bmd: jax.Array) -> jax.Array:
    """(n, m, b) of the squared Euclidean distances of all frames."""
    x_n1db, y_mdb = x_bnd.transpose(1, 2, 0)[:, None], y_bmd.transpose(1, 2, 0)
    return jnp.square(x_n1db - y_mdb).sum(2)


def _forward(x_bnd: jax.Array, y_bmd: jax.Array) -> tuple:
    return squared_distances(x_bnd, y_bmd), (x_bnd, y_bmd)


def _backward(saved: tuple, g_nmb: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As products of matrices: several times as fast as the sum's derivative."""
    x_bnd, y_bmd = saved
    g_bnm = g_nmb.transpose(2, 0, 1)
    y_bnd = jnp.einsum("bnm,bmd->bnd", g_bnm, y_bmd)
    x_bmd = jnp.einsum("bnm,bnd->bmd", g_bnm, x_bnd)
    return (
        2 * (g_bnm.sum(2)[..., None] * x_bnd - y_bnd),
        2 * (g_bnm.sum(1)[..., None] * y_bmd - x_bmd),
    )


squared_distances.defvjp(_forward, _backward)


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


def ends(
    n_b: jax.Array | None, m_b: jax.Array | None, cost_nmb: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Lengths, int32 (b,); all frames where none are given."""
    n, m, b = cost_nmb.shape
    full_n, full_m = jnp.full((b,), n), jnp.full((b,), m)
    return (full_n if n_b is None else n_b), (full_m if m_b is None else m_b)
