"""The embedding of a diffusion model's time step."""

import math

import jax
import jax.numpy as jnp

PERIOD = 10_000.0


def sinusoids(t_b: jax.Array, width: int) -> jax.Array:
    """`[cos(t f_i), sin(t f_i)]`, `f_i = 10000^(-2i / width)`, float32 (b, width).

    Vaswani et al. 2017 with cosines first, as latent diffusion and DiT have them;
    `t_b` may be fractional. An odd width ends with a zero.
    """
    half = width // 2
    frequency_f = jnp.exp(-math.log(PERIOD) / half * jnp.arange(half))
    angle_bf = t_b.astype(jnp.float32)[:, None] * frequency_f
    both_bw = jnp.concatenate([jnp.cos(angle_bf), jnp.sin(angle_bf)], axis=-1)
    return jnp.pad(both_bw, ((0, 0), (0, width % 2)))
