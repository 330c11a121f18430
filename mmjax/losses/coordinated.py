"""Losses of a coordinated space: rows of two views that belong together lie near.

Some rows lack a view. Every row sees all others, so under data parallelism the caller
gathers the rows first. Legend: b rows, d width; rows have length one.
"""

import jax
import jax.numpy as jnp

_SAME = 1.0 - 1e-5  # cosine above which two targets are one


def _similarity(a_bd: jax.Array, b_bd: jax.Array) -> jax.Array:
    return jnp.matmul(
        a_bd.astype(jnp.float32),
        b_bd.astype(jnp.float32).T,
        precision=jax.lax.Precision.HIGHEST,
    )


def _mean(x_b: jax.Array, present_b: jax.Array) -> jax.Array:
    """Over rows with both views; 0 where there are none."""
    return jnp.where(present_b, x_b, 0.0).sum() / jnp.maximum(present_b.sum(), 1)


def info_nce(
    a_bd: jax.Array, b_bd: jax.Array, present_b: jax.Array, scale: float
) -> jax.Array:
    """Symmetric cross-entropy over the rows that have both views, a scalar.

    CLIP's loss (Radford et al. 2021, figure 3), at a fixed inverse temperature.
    """
    logits_bb = scale * _similarity(a_bd, b_bd)
    least = jnp.finfo(jnp.float32).min

    def half(logits_bb: jax.Array) -> jax.Array:
        logits_bb = jnp.where(present_b, logits_bb, least)
        logp_b = jnp.diagonal(jax.nn.log_softmax(logits_bb, axis=-1))
        return _mean(-logp_b, present_b)

    return (half(logits_bb) + half(logits_bb.T)) / 2


def hinge_rank(
    a_bd: jax.Array, b_bd: jax.Array, present_b: jax.Array, margin: float
) -> jax.Array:
    """sum_j max(0, margin - a_i.b_i + a_i.b_j), its mean over rows i, a scalar.

    DeViSE's loss (Frome et al. 2013, equation 1) with the batch's other targets for
    wrong labels; targets equal to the row's own are none. Adding it with a and b
    exchanged gives Kiros et al. 2014.
    """
    scores_bb = _similarity(a_bd, b_bd)
    other_bb = (_similarity(b_bd, b_bd) < _SAME) & present_b
    other_bb &= ~jnp.eye(len(a_bd), dtype=bool)  # a target may be zeros
    gap_bb = margin - jnp.diagonal(scores_bb)[:, None] + scores_bb
    return _mean(jnp.where(other_bb, jnp.maximum(gap_bb, 0.0), 0.0).sum(-1), present_b)
