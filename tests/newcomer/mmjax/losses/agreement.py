"""Agreement of two views whose columns are kept apart.

Legend: b rows, d columns.
"""

import jax
import jax.numpy as jnp


def agreement(a_bd: jax.Array, b_bd: jax.Array) -> jax.Array:
    """Mean squared distance of the views, plus the squares of what is not white."""

    def spread(x_bd: jax.Array) -> jax.Array:
        x_bd = x_bd - x_bd.mean(0)
        cov_dd = x_bd.T @ x_bd / len(x_bd)
        return jnp.square(cov_dd - jnp.eye(len(cov_dd))).sum()

    return jnp.square(a_bd - b_bd).sum(-1).mean() + spread(a_bd) + spread(b_bd)
