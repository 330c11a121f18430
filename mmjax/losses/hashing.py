"""Losses of deep cross-modal hashing (DCMH; Jiang and Li 2017, equation 1).

Every row sees all others, so under data parallelism the caller gathers the rows first.
All is float32. Legend: b rows, k bits; outputs are real, and their signs are the bits.
"""

import jax
import jax.numpy as jnp


def pairwise_likelihood(
    a_bk: jax.Array, b_bk: jax.Array, similar_bb: jax.Array
) -> jax.Array:
    """Minus the log-likelihood of the similarities, under sigmoid(a.b / 2), a scalar.

    Similar and dissimilar pairs have half the weight each (as in HashNet, Cao et al.
    2017), where the paper sums over all pairs: of captions and images one pair in b is
    similar, and a sum would be the dissimilar ones'.
    """
    theta_bb = 0.5 * jnp.matmul(
        a_bk.astype(jnp.float32),
        b_bk.astype(jnp.float32).T,
        precision=jax.lax.Precision.HIGHEST,
    )
    signed_bb = jnp.where(similar_bb, theta_bb, -theta_bb)
    cost_bb = -jax.nn.log_sigmoid(signed_bb)
    same_bb = similar_bb.astype(jnp.float32)

    def mean(weight_bb: jax.Array) -> jax.Array:
        return (weight_bb * cost_bb).sum() / jnp.maximum(weight_bb.sum(), 1.0)

    return 0.5 * (mean(same_bb) + mean(1.0 - same_bb))


def quantisation(a_bk: jax.Array, b_bk: jax.Array) -> jax.Array:
    """Mean squared distance of both outputs from their common bits, sign(a + b)."""
    bits_bk = jax.lax.stop_gradient(jnp.where(a_bk + b_bk > 0, 1.0, -1.0))
    return (jnp.square(a_bk - bits_bk) + jnp.square(b_bk - bits_bk)).mean()


def imbalance(a_bk: jax.Array, b_bk: jax.Array) -> jax.Array:
    """Mean over bits of both outputs' squared means: 0 where bits are balanced."""
    return (jnp.square(a_bk.mean(0)) + jnp.square(b_bk.mean(0))).mean()
