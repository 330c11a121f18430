"""The logit-Laplace distribution of a pixel (Ramesh et al. 2021, appendix A.3).

    f(x | mu, b) = exp(-|logit(x) - mu| / b) / (2 b x (1 - x)),  0 < x < 1

Gaussian and Laplace densities put mass outside a pixel's range; this one does not.
As logit(0) and logit(1) are infinite, pixels in [0, 1] are first moved into
[eps, 1 - eps]. All in float32.
"""

import math

import jax
import jax.numpy as jnp

EPS = 0.1


def map_pixels(x: jax.Array) -> jax.Array:
    """[0, 1] to [eps, 1 - eps]."""
    return x * (1.0 - 2.0 * EPS) + EPS


def unmap_pixels(x: jax.Array) -> jax.Array:
    """`map_pixels` undone, clipped to [0, 1]."""
    return jnp.clip((x - EPS) / (1.0 - 2.0 * EPS), 0.0, 1.0)


def nll(x: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    """-ln f(x | mu, b) in nats, elementwise.

    Args:
      x: mapped pixels, in [eps, 1 - eps].
      mean: mu, in logits.
      log_scale: ln b.
    """
    x, mean, log_scale = (a.astype(jnp.float32) for a in (x, mean, log_scale))
    log_x, log_rest = jnp.log(x), jnp.log1p(-x)
    off = jnp.abs(log_x - log_rest - mean)
    # off / b as a product, so that no division is left in the gradient
    return math.log(2.0) + log_scale + log_x + log_rest + off * jnp.exp(-log_scale)


def pixels(mean: jax.Array) -> jax.Array:
    """The image of mu, in [0, 1]: the median of x."""
    return unmap_pixels(jax.nn.sigmoid(mean.astype(jnp.float32)))


def from_unit(nll_sum: jax.Array, count: int) -> jax.Array:
    """The nll of `count` pixels as a density over [0, 1], from that of mapped ones."""
    return nll_sum - count * math.log(1.0 - 2.0 * EPS)
