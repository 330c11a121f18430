"""The loss of a denoiser: when it looks, and how much an error there weighs.

The signal-to-noise ratio is snr = alpha^2 / sigma^2. A weight here is one of the error
in x_0; an error in another form is that error times a factor of its own
(`x0_error_in_form`), so that a weighted loss is the same number whatever the network
predicts.

Legend: b rows.
"""

import jax
import jax.numpy as jnp

TIMES = ("uniform", "logit_normal")


def time(key: jax.Array, kind: str, mean: float, steps: int) -> jax.Array:
    """A time to train at, in [0, steps - 1], float32.

    kind: "uniform" over the whole steps, or "logit_normal", the logistic function of a
    normal number around `mean` (Esser et al. 2024, section 3.1).
    """
    if kind == "uniform":
        return jax.random.randint(key, (), 0, steps).astype(jnp.float32)
    return (steps - 1) * jax.nn.sigmoid(mean + jax.random.normal(key))


def _snr(alpha_b: jax.Array, sigma_b: jax.Array) -> jax.Array:
    return jnp.square(alpha_b / jnp.maximum(sigma_b, 1e-8))


def x0_error_in_form(form: str, alpha_b: jax.Array, sigma_b: jax.Array) -> jax.Array:
    """Square error of a form over the square error of the x_0 it stands for, (b,)."""
    if form == "x0":
        return jnp.ones_like(alpha_b)
    if form == "eps":
        return _snr(alpha_b, sigma_b)
    if form == "v":
        return jnp.square((alpha_b**2 + sigma_b**2) / jnp.maximum(sigma_b, 1e-8))
    return jnp.square((alpha_b + sigma_b) / jnp.maximum(sigma_b, 1e-8))


def weight(
    kind: str,
    form: str,
    alpha_b: jax.Array,
    sigma_b: jax.Array,
    *,
    gamma: float,
) -> jax.Array:
    """What the square error of a form is multiplied by, (b,).

    kind:
      "none": 1, the plain error of what the network predicts.
      "eps", "x0", "v", "flow": the error as if the network predicted that.
      "min_snr": min(snr, gamma) of the error in x_0 (Hang et al. 2023, eq. 8; gamma 5
        in the paper).
      "p2": 1 / (1 + snr)^gamma of the error in eps (Choi et al. 2022, eq. 8 with k = 1;
        gamma 1 in the paper).
    """
    if kind == "none":
        return jnp.ones_like(alpha_b)
    own_b = x0_error_in_form(form, alpha_b, sigma_b)
    snr_b = _snr(alpha_b, sigma_b)
    if kind == "min_snr":
        return jnp.minimum(snr_b, gamma) / jnp.maximum(own_b, 1e-8)
    if kind == "p2":
        return snr_b / (1 + snr_b) ** gamma / jnp.maximum(own_b, 1e-8)
    return x0_error_in_form(kind, alpha_b, sigma_b) / jnp.maximum(own_b, 1e-8)


WEIGHTS = ("none", "eps", "x0", "v", "flow", "min_snr", "p2")


def square_error(given: jax.Array, target: jax.Array) -> jax.Array:
    """Mean square difference of every row, float32 (b,)."""
    error = jnp.square(given.astype(jnp.float32) - target.astype(jnp.float32))
    return error.mean(tuple(range(1, error.ndim)))
