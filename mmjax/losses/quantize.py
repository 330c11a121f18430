"""The terms of VQ-VAE's loss, and how well a codebook is used.

Van den Oord et al. 2017, eq. 3: reconstruction, codebook and commitment. The squared
distances are means over all their elements, as in the public implementations (Sonnet,
taming-transformers), where the paper writes sums over a code's width.

Legend: k codes.
"""

import jax
import jax.numpy as jnp


def _mean_square(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)).mean()


def commitment(encoded: jax.Array, codes: jax.Array) -> jax.Array:
    """mean |z - sg(e)|^2: holds the encoder to the codes it chose."""
    return _mean_square(encoded, jax.lax.stop_gradient(codes))


def codebook(encoded: jax.Array, codes: jax.Array) -> jax.Array:
    """mean |sg(z) - e|^2: pulls the chosen codes to the encoder's output."""
    return _mean_square(jax.lax.stop_gradient(encoded), codes)


def edges(off_bhwc: jax.Array) -> jax.Array:
    """Mean square of what an error changes by from a pixel to the next, both ways.

    The gradient difference loss of Mathieu et al. 2016 (eq. 6, squared and with signs):
    it leaves a flat error alone and adds to those along edges.
    """
    off_bhwc = off_bhwc.astype(jnp.float32)
    down = jnp.square(jnp.diff(off_bhwc, axis=1)).mean()
    return down + jnp.square(jnp.diff(off_bhwc, axis=2)).mean()


def perplexity(count_k: jax.Array) -> jax.Array:
    """exp of the entropy of the use of codes: k when all are used alike, 1 when one is.

    `count_k` is in any unit, and not all zero.
    """
    share_k = count_k / count_k.sum()
    log_k = jnp.log(jnp.where(share_k > 0, share_k, 1.0))
    return jnp.exp(-(share_k * log_k).sum())


def used(count_k: jax.Array) -> jax.Array:
    """Share of the codes that are used at all."""
    return (count_k > 0).mean()


def psnr(mean_square: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, at most 100, of pixels in [0, 1]."""
    return -10.0 * jnp.log10(jnp.maximum(mean_square, 1e-10))
