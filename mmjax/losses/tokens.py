"""Losses over sequences of discrete tokens, in nats, float32.

Legend: b rows, n positions, v ids.
"""

import jax
import jax.numpy as jnp


def nll(logits_bnv: jax.Array, targets_bn: jax.Array) -> jax.Array:
    """`-log softmax(logits)[target]` at every position, (b, n) float32.

    Args:
      logits_bnv: unnormalised log-probabilities, any float dtype.
      targets_bn: int32 ids in [0, v).
    """
    logits_bnv = logits_bnv.astype(jnp.float32)
    # Picked by comparison: a sum that fuses, where a gather's gradient is a scatter.
    id_v = jnp.arange(logits_bnv.shape[-1])
    hit_bnv = targets_bn[..., None] == id_v
    picked_bn = jnp.where(hit_bnv, logits_bnv, 0.0).sum(-1)
    return jax.nn.logsumexp(logits_bnv, axis=-1) - picked_bn


def row_mean(values_bn: jax.Array, counted_bn: jax.Array) -> jax.Array:
    """Mean over the positions of each row that count, (b,); 0 for a row with none."""
    weight_bn = counted_bn.astype(jnp.float32)
    return (values_bn * weight_bn).sum(-1) / jnp.maximum(weight_bn.sum(-1), 1.0)


def text_and_image(
    text: jax.Array, image: jax.Array, *, text_weight: float = 1 / 8
) -> jax.Array:
    """`text_weight * text + (1 - text_weight) * image`, elementwise.

    The objective of DALL-E (Ramesh et al. 2021, section 2.3: 1/8 and 7/8) from the mean
    cross-entropies of the text and of the image tokens.
    """
    return text_weight * text + (1 - text_weight) * image
