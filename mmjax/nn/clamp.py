"""Clamping that does not trap a parameter outside its bounds."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def clamp(x: jax.Array, low: float, high: float) -> jax.Array:
    """`clip(x, low, high)` whose gradient may still lead back inside.

    Outside the bounds a plain clip has no gradient, so a learned temperature that once
    steps over its limit stays there. Here gradients whose descent step points inwards
    pass, others are zero: what clipping the parameter after each update amounts to.
    """
    return jnp.clip(x, low, high)


def _forward(x: jax.Array, low: float, high: float) -> tuple:
    return clamp(x, low, high), x


def _backward(low: float, high: float, x: jax.Array, grad: jax.Array) -> tuple:
    inward = jnp.where(x >= high, grad > 0, jnp.where(x <= low, grad < 0, True))
    return (jnp.where(inward, grad, 0.0),)


clamp.defvjp(_forward, _backward)
