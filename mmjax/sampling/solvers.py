"""From noise to data along a schedule, with any denoiser.

    x_bhwc = solve("dpm_solver", denoise, x_bhwc, levels)

All of them step from a level (alpha, sigma) to the next one, where noise is less.
`denoise(x, i)` gives the estimates (x_0, eps) of rows at level i, and `noise(i)`
standard normal numbers for the step from there.

Legend: n steps, b rows; a prime marks the level that a step goes to.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError

Denoise = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Noise = Callable[[jax.Array], jax.Array]
After = Callable[[jax.Array, jax.Array], jax.Array]


class Levels(NamedTuple):
    """Where a sampler stops on its way, on the host in float64.

    time: (n,), what the denoiser is told; it is called nowhere else.
    alpha, sigma: (n + 1,); the last pair is that of the result, (1, 0) for clean data.
    """

    time: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


def _table(*columns: np.ndarray) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(column, jnp.float32) for column in columns)


def ddim(
    denoise: Denoise,
    x: jax.Array,
    levels: Levels,
    noise: Noise,
    after: After,
    *,
    eta: float = 0.0,
) -> jax.Array:
    """Song et al. 2021, eq. 12 and 16, for any alpha and sigma.

    `x' = alpha' x_0 + sqrt(sigma'^2 - u^2) eps + u z`, where u is eta times the
    deviation of q(x' | x, x_0): `u = eta sigma' sqrt(1 - (alpha sigma' / (alpha'
    sigma))^2)`. Eta 1 is ancestral sampling (Ho et al. 2020, Algorithm 2, with the
    smaller of their two variances), 0 has no noise of its own. Without noise it is
    also Euler's method, both in sigma / alpha (Karras et al. 2022) and along the
    straight lines of a rectified flow.
    """
    alpha, sigma = levels.alpha, levels.sigma
    shrunk = alpha[:-1] * sigma[1:] / (alpha[1:] * sigma[:-1])
    up = eta * sigma[1:] * np.sqrt(np.maximum(1 - shrunk**2, 0))
    down = np.sqrt(np.maximum(sigma[1:] ** 2 - up**2, 0))
    alpha_n, down_n, up_n = _table(alpha[1:], down, up)

    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        x_0, eps = denoise(x, i)
        x = alpha_n[i] * x_0 + down_n[i] * eps
        if eta:
            x = x + up_n[i] * noise(i)
        return after(x, i + 1), None

    return jax.lax.scan(step, x, jnp.arange(len(levels.time)))[0]


def ddpm(
    denoise: Denoise, x: jax.Array, levels: Levels, noise: Noise, after: After
) -> jax.Array:
    """Ancestral sampling: `ddim` with eta 1."""
    return ddim(denoise, x, levels, noise, after, eta=1.0)


def plms(
    denoise: Denoise, x: jax.Array, levels: Levels, noise: Noise, after: After
) -> jax.Array:
    """Linear multistep on eps (Liu et al. 2022, eq. 12), as in latent diffusion's code.

    The first step is Heun's and calls the denoiser twice; the orders of the next ones
    are 2, 3, 4, 4, ...
    """
    del noise
    if levels.alpha[0] == 0:
        raise UserError(
            "the sampler plms begins where some data are left, and this schedule ends "
            "in noise alone: use ddim, dpm_solver, euler or heun"
        )
    alpha_m, sigma_m = _table(levels.alpha, levels.sigma)
    order = np.array([[1, 0, 0, 0], [1.5, -0.5, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0]])
    order = np.vstack([order, np.array([55, -59, 37, -9]) / 24])
    (weight,) = _table(order)

    def move(x: jax.Array, eps: jax.Array, i: jax.Array) -> jax.Array:
        x_0 = (x - sigma_m[i] * eps) / alpha_m[i]
        return alpha_m[i + 1] * x_0 + sigma_m[i + 1] * eps

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
        x, past = carry
        eps = denoise(x, i)[1]
        mixed = jnp.tensordot(weight[jnp.minimum(i, 3)], jnp.stack([eps, *past]), 1)
        return (after(move(x, mixed, i), i + 1), (eps, *past[:2])), None

    eps = denoise(x, 0)[1]
    first = eps
    if len(levels.time) > 1:
        first = 0.5 * (eps + denoise(move(x, eps, 0), 1)[1])
    x = after(move(x, first, 0), 1)
    blank = jnp.zeros_like(eps)
    rest = jnp.arange(1, len(levels.time))
    return jax.lax.scan(step, (x, (eps, blank, blank)), rest)[0][0]


def dpm_solver(
    denoise: Denoise, x: jax.Array, levels: Levels, noise: Noise, after: After
) -> jax.Array:
    """DPM-Solver++(2M), Lu et al. 2022b, Algorithm 2.

    The first step is of the first order, and so is the last where it ends in clean
    data or there are fewer than 15 steps, as in the authors' code.
    """
    del noise
    n, (alpha, sigma) = len(levels.time), levels[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.diff(np.log(alpha) - np.log(sigma))  # of half the log SNR
        back = np.nan_to_num(h[1:] / (2 * h[:-1]), posinf=0.0)
    back = np.concatenate([[0.0], back])
    if sigma[-1] == 0 or n < 15:
        back[-1] = 0.0
    shrink = sigma[1:] / sigma[:-1]
    pull = alpha[1:] - alpha[:-1] * shrink
    shrink_n, pull_n, back_n = _table(shrink, pull, back)

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
        x, past = carry
        x_0 = denoise(x, i)[0]
        mixed = x_0 + back_n[i] * (x_0 - past)
        return (after(shrink_n[i] * x + pull_n[i] * mixed, i + 1), x_0), None

    start = (x, jnp.zeros_like(x))
    return jax.lax.scan(step, start, jnp.arange(n))[0][0]


def heun(
    denoise: Denoise, x: jax.Array, levels: Levels, noise: Noise, after: After
) -> jax.Array:
    """Heun's method along the straight lines between data and noise.

    In `y = x / (alpha + sigma)` and `u = sigma / (alpha + sigma)` every schedule is the
    rectified flow `dy / du = eps - x_0`, finite at both ends. Two calls a step, but
    for the last one, which is Euler's (as in Karras et al. 2022, Algorithm 1).
    """
    del noise
    size = levels.alpha + levels.sigma
    size_m, u_m = _table(size, levels.sigma / size)

    def slope(x: jax.Array, i: jax.Array) -> jax.Array:
        x_0, eps = denoise(x, i)
        return eps - x_0

    def move(x: jax.Array, slope: jax.Array, i: jax.Array) -> jax.Array:
        return size_m[i + 1] * (x / size_m[i] + (u_m[i + 1] - u_m[i]) * slope)

    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        first = slope(x, i)
        second = slope(move(x, first, i), i + 1)
        return after(move(x, 0.5 * (first + second), i), i + 1), None

    last = len(levels.time) - 1
    x = jax.lax.scan(step, x, jnp.arange(last))[0]
    return after(move(x, slope(x, last), last), last + 1)


SOLVERS = {
    "ddim": ddim,
    "ddpm": ddpm,
    "plms": plms,
    "dpm_solver": dpm_solver,
    "euler": ddim,  # the same numbers, see there
    "heun": heun,
}


def invert(denoise: Denoise, x: jax.Array, levels: Levels) -> jax.Array:
    """The noise that `ddim` of eta 0 turns into `x`, but for the size of its steps.

    Every step is undone with the eps of the level that it comes from, at the rows that
    it led to (Dhariwal and Nichol 2021, appendix F).
    """
    alpha_m, sigma_m = _table(levels.alpha, levels.sigma)

    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        eps = denoise(x, i)[1]
        x_0 = (x - sigma_m[i + 1] * eps) / alpha_m[i + 1]
        return alpha_m[i] * x_0 + sigma_m[i] * eps, None

    return jax.lax.scan(step, x, jnp.arange(len(levels.time))[::-1])[0]


def solve(
    name: str,
    denoise: Denoise,
    x: jax.Array,
    levels: Levels,
    *,
    noise: Noise = jnp.zeros_like,
    after: After = lambda x, i: x,
    eta: float = 0.0,
) -> jax.Array:
    """Data from noise `x`, which has the first level's alpha and sigma.

    Args:
      name: of `SOLVERS`.
      after: called with the rows of each new level and its number, in place of which
        the sampler goes on from what it returns.
      eta: of "ddim" alone.
    """
    more = {"eta": eta} if name == "ddim" else {}
    return SOLVERS[name](denoise, x, levels, noise, after, **more)
