"""Dropout whose draws follow the rows, not the devices that hold them."""

import jax
import jax.numpy as jnp


def keep(
    x: jax.Array, rate: float, keys_b: jax.Array | None, *, salt: int
) -> jax.Array:
    """`x` (b, ...) with a share of its numbers 0 and the others larger by as much.

    Args:
      rate: the share, 0 to below 1.
      keys_b: one key a row; None leaves `x` as it is, as in evaluation.
      salt: tells this layer's draws from another's.
    """
    if keys_b is None or not rate:
        return x
    fold = jax.vmap(jax.random.fold_in, (0, None))(keys_b, salt)
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
    return jnp.where(draw(fold), x / (1 - rate), 0.0)
