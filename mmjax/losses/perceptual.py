"""Distances of images in the features of a network (Zhang et al. 2018, LPIPS).

Legend: b images, g side of a stage's grid, c channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

EPS = 1e-10  # added to lengths, as in LPIPS


def distance(
    a: Mapping[str, jax.Array],
    b: Mapping[str, jax.Array],
    weights: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Mean over images of the paper's equation 1, ().

    Each position's features have length 1; their squared differences are weighted by
    channel, summed over channels, averaged over positions and summed over stages.

    Args:
      a, b: the features of two sets of images by stage, (b, g, g, c) each.
      weights: of the channels (c,) by stage; None weighs all of them 1.
    """
    total = jnp.zeros(())
    for stage in a:
        square = jnp.square(_unit(a[stage]) - _unit(b[stage]))
        if weights is not None:
            square = square * weights[stage]
        total = total + square.sum(-1).mean()
    return total


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    square = jnp.square(x).sum(-1, keepdims=True)
    # the maximum inside the root: its gradient is finite where x is 0
    return x / (jnp.sqrt(jnp.maximum(square, EPS**2)) + EPS)
