"""Losses of captions and of where a captioner looks, in float32.

Legend: b rows, m words, n cells of an image.
"""

import jax
import jax.numpy as jnp


def total(nats_bm: jax.Array, counted_bm: jax.Array) -> jax.Array:
    """`-log p(caption | image)`, (b,): nats summed over the words that count.

    Vinyals et al. 2015, equation 10.
    """
    return jnp.where(counted_bm, nats_bm, 0.0).sum(-1)


def doubly_stochastic(weight_bmn: jax.Array, counted_bm: jax.Array) -> jax.Array:
    """`sum_n (1 - sum_m weight)^2`, (b,): every cell is to be looked at.

    Xu et al. 2015, equation 14, for their lambda of 1.
    """
    seen_bn = (weight_bmn * counted_bm[..., None]).sum(1)
    return jnp.square(1.0 - seen_bn).sum(-1)


def reinforce(
    nats_b: jax.Array,
    log_place_bm: jax.Array,
    entropy_bm: jax.Array,
    counted_bm: jax.Array,
    *,
    baseline: jax.Array,
    entropy_weight: float,
) -> jax.Array:
    """What has the gradient of the cells that were drawn, (b,).

    `-(log p(caption) - baseline) sum_m log p(cell) - entropy_weight sum_m H`, as Xu et
    al. 2015, equation 12. Their reward is of the whole caption and ours of a word, the
    mean, so that it is of one size for captions of any length.

    Args:
      nats_b: `total`; no gradient goes through it here.
      log_place_bm: log-probabilities of the cells that were drawn.
      baseline: what a word's log-probability is expected to be.
    """
    words_b = jnp.maximum(counted_bm.sum(-1), 1)
    reward_b = jax.lax.stop_gradient(-nats_b / words_b - baseline)
    drawn_b = total(log_place_bm, counted_bm)
    return -reward_b * drawn_b - entropy_weight * total(entropy_bm, counted_bm)
