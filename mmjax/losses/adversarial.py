"""Losses of two players, from a discriminator's scores: higher is "real".

Lim and Ye 2017 (arXiv 1705.02894), as in VQGAN and DF-GAN. Scores have any shape.
"""

from collections.abc import Callable
from typing import Any

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


def matching_penalty(
    score: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]],
    x: jax.Array,
    e: jax.Array,
    *,
    weight: float = 2.0,
    power: float = 6.0,
) -> tuple[jax.Array, jax.Array, Any]:
    """weight * mean |(dD/dx, dD/de)|^power, with the scores and what comes with them.

    The matching-aware zero-centred gradient penalty (Tao et al. 2022, section 3.3) at
    real images and their own texts. The paper adds the norms of the two gradients; this
    is the norm of both as one vector, as in the authors' code: with an even power it is
    a polynomial, so it has a gradient of its own where one of the two is zero.

    Its gradient is that of D's directional derivative along the penalty's gradient at
    (dD/dx, dD/de), by forward mode: a third of the time of reverse over reverse.

    Args:
      score: gives scores (b,) of images and texts, each of its own row, and any other
        arrays. Forward mode has to know its operations.
      x, e: rows of images and of text vectors, (b, ...).
    """
    scores_b, pull, _ = jax.vjp(score, x, e, has_aux=True)
    grads = jax.lax.stop_gradient(pull(jnp.ones_like(scores_b)))

    def of_grads(grads: tuple[jax.Array, ...]) -> jax.Array:
        square_b = sum(jnp.square(g).reshape(len(g), -1).sum(-1) for g in grads)
        return weight * jnp.mean(square_b ** (power / 2))

    penalty, along = jax.value_and_grad(of_grads)(grads)
    scores_b, slopes_b, more = jax.jvp(score, (x, e), along, has_aux=True)
    slope = slopes_b.sum()
    return penalty + slope - jax.lax.stop_gradient(slope), scores_b, more


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
