"""Losses of two players, from a discriminator's scores: higher is "real".

Lim and Ye 2017 (arXiv 1705.02894), as in VQGAN and DF-GAN. Scores have any shape.
"""

import jax
import jax.numpy as jnp


def hinge_real(scores: jax.Array) -> jax.Array:
    """mean max(0, 1 - D(x)): the discriminator's loss on real images, ()."""
    return jnp.maximum(0.0, 1.0 - scores.astype(jnp.float32)).mean()


def hinge_fake(scores: jax.Array) -> jax.Array:
    """mean max(0, 1 + D(x)): the discriminator's loss on generated images, ()."""
    return jnp.maximum(0.0, 1.0 + scores.astype(jnp.float32)).mean()


def generator(scores: jax.Array) -> jax.Array:
    """-mean D(x): the generator's loss, ()."""
    return -scores.astype(jnp.float32).mean()


def adaptive_weight(
    reconstruction: jax.Array,
    generator: jax.Array,
    *,
    eps: float = 1e-4,
    most: float = 1e4,
) -> jax.Array:
    """min(|reconstruction| / (|generator| + eps), most), ().

    Esser et al. 2021, equation 7: arguments are the gradients of the two losses at the
    generator's last layer, over all rows of a step; |.| is the Euclidean norm.
    """
    norms = [jnp.linalg.norm(g.ravel()) for g in (reconstruction, generator)]
    return jnp.clip(norms[0] / (norms[1] + eps), 0.0, most)
