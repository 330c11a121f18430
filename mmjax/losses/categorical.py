"""Categorical latents: relaxed samples, and their divergence from an even prior.

Ramesh et al. 2021, appendix A; Jang et al. 2016 and Maddison et al. 2016 for the
relaxation.

Legend: b rows, n positions, v codes.
"""

import math

import jax
import jax.numpy as jnp


def gumbel(keys_b: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard Gumbel noise, float32 (b, *shape): a row for each key."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys_b)


def gumbel_softmax(
    logits_bnv: jax.Array, noise_bnv: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """softmax((logits + noise) / temperature), float32.

    A sample of the distribution as temperature goes to 0, and then a one-hot vector.
    The dVAE uses it as it is in both directions: nothing passes straight through.
    """
    noisy_bnv = logits_bnv.astype(jnp.float32) + noise_bnv
    return jax.nn.softmax(noisy_bnv / temperature, axis=-1)


def gumbel_max(logits_bnv: jax.Array, noise_bnv: jax.Array) -> jax.Array:
    """A sample of the distribution, int32 (b, n): the relaxed one's limit."""
    noisy_bnv = logits_bnv.astype(jnp.float32) + noise_bnv
    return jnp.argmax(noisy_bnv, axis=-1).astype(jnp.int32)


def kl_to_uniform(logits_bnv: jax.Array) -> jax.Array:
    """KL(softmax(logits) || uniform) in nats, (b, n): 0 when even, ln v at one-hot."""
    log_q_bnv = jax.nn.log_softmax(logits_bnv.astype(jnp.float32), axis=-1)
    negative_entropy_bn = (jnp.exp(log_q_bnv) * log_q_bnv).sum(-1)
    return negative_entropy_bn + math.log(logits_bnv.shape[-1])
