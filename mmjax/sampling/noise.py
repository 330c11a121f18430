"""How noise mixes with data over time, and what a denoiser may predict of the mixture.

A noised row is `x_t = alpha_t x_0 + sigma_t eps` with eps from N(0, 1). Time runs from
0, next to no noise, to `steps - 1`, next to no data; whole numbers are the steps that
papers count, and those between them are interpolated.

Legend: b rows, n steps of the table.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("linear", "scaled_linear", "cosine", "flow")
_MAX_BETA = 0.999  # of a cosine's last steps (Nichol and Dhariwal 2021)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Alpha and sigma of every time; alpha^2 + sigma^2 = 1 but for "flow".

    kind: how the variance added in a step, beta, grows.
      "linear": from `start` to `end` (Ho et al. 2020).
      "scaled_linear": its square root does (Rombach et al. 2022; their code calls this
        one linear).
      "cosine": alpha^2 falls along a squared cosine (Nichol and Dhariwal 2021, eq. 17).
      "flow": no betas; alpha = 1 - sigma, and sigma = (t + 1) / steps (rectified flow,
        Liu et al. 2022; Lipman et al. 2022).
    steps: of the table.
    start, end: the betas of the two linear kinds.
    zero_terminal: whether alpha is moved and scaled so that the last step holds no data
      (Lin et al. 2023, Algorithm 1). "flow" holds none as it is.
    """

    kind: str = "cosine"
    steps: int = 1000
    start: float = 1e-4
    end: float = 0.02
    zero_terminal: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"schedule.kind is {self.kind!r}: use {', '.join(KINDS[:-1])} or "
                f"{KINDS[-1]}"
            )
        if self.steps < 2:
            raise ValueError(f"schedule.steps is {self.steps}: use 2 or more")
        if not 0 < self.start <= self.end < 1:
            raise ValueError(
                f"schedule.start is {self.start} and end {self.end}: use 0 < start <= "
                "end < 1"
            )

    @functools.cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Alpha and sigma of every step, float64 (n,) each."""
        n = self.steps
        if self.kind == "flow":
            sigma_n = np.arange(1, n + 1) / n
            return 1 - sigma_n, sigma_n
        if self.kind == "cosine":
            angle_m = (np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2
            kept_m = np.cos(angle_m) ** 2
            beta_n = np.minimum(1 - kept_m[1:] / kept_m[:-1], _MAX_BETA)
        elif self.kind == "linear":
            beta_n = np.linspace(self.start, self.end, n)
        else:
            beta_n = np.linspace(self.start**0.5, self.end**0.5, n) ** 2
        alpha_n = np.sqrt(np.cumprod(1 - beta_n))
        if self.zero_terminal:
            first, last = alpha_n[0], alpha_n[-1]
            alpha_n = (alpha_n - last) * first / (first - last)
        return alpha_n, np.sqrt(1 - alpha_n**2)

    @property
    def ends_in_noise(self) -> bool:
        """Whether the last step holds no data at all."""
        return bool(self.table[0][-1] == 0)

    def levels(self, time: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Alpha and sigma of times in [0, steps - 1], float32, shaped as they are."""
        where = jnp.arange(self.steps, dtype=jnp.float32)
        alpha_n, sigma_n = (jnp.asarray(x, jnp.float32) for x in self.table)
        alpha, sigma = (jnp.interp(time, where, x) for x in (alpha_n, sigma_n))
        if self.kind == "flow":
            return alpha, sigma
        size = jnp.sqrt(alpha**2 + sigma**2)  # between steps it falls short of 1
        return alpha / size, sigma / size


def noised(
    x_0: jax.Array, eps: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> jax.Array:
    """x_t, where alpha and sigma have the rows' axes and broadcast over the rest."""
    return alpha * x_0 + sigma * eps


# What a denoiser is trained to give, of data, noise, alpha and sigma.
TARGETS = {
    "eps": lambda x_0, eps, alpha, sigma: eps,
    "x0": lambda x_0, eps, alpha, sigma: x_0,
    # Salimans and Ho 2022, appendix D
    "v": lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
    # the velocity of the straight line from data to noise
    "flow": lambda x_0, eps, alpha, sigma: eps - x_0,
}


def estimates(
    form: str, given: jax.Array, x_t: jax.Array, alpha: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(x_0, eps) that a denoiser's output stands for, for any of `TARGETS`.

    "eps" divides by alpha and "x0" by sigma: they need these above 0.
    """
    if form == "eps":
        return (x_t - sigma * given) / alpha, given
    if form == "x0":
        return given, (x_t - alpha * given) / sigma
    if form == "v":
        size = alpha**2 + sigma**2
        return (alpha * x_t - sigma * given) / size, (
            sigma * x_t + alpha * given
        ) / size
    size = alpha + sigma
    return (x_t - sigma * given) / size, (x_t + alpha * given) / size
