"""Weight initialisers the papers' code relies on."""

import jax
import jax.numpy as jnp

Initializer = jax.nn.initializers.Initializer


def uniform(bound: float) -> Initializer:
    """U(-bound, bound)."""

    def init(key: jax.Array, shape: tuple, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_default(fan_in: int) -> Initializer:
    """U(+-fan_in^-1/2): torch's default for weight and bias of Linear and Conv2d."""
    return uniform(fan_in**-0.5)


def normal(std: float) -> Initializer:
    """N(0, std^2)."""
    return jax.nn.initializers.normal(std)
