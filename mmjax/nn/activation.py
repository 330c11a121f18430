"""Activations by name, as configs and checkpoints spell them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError


def _from_input(fn: Callable[[jax.Array], jax.Array]) -> Callable:
    """`fn`, elementwise, whose gradient keeps its input alone and computes the rest.

    Left to itself, autodiff has the forward pass write one or two more arrays of the
    input's size for the backward pass to read: more memory, and more time than the
    arithmetic on them. Reverse mode only.
    """
    wrapped = jax.custom_vjp(fn)

    def backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
        # The barrier keeps the compiler from sharing the forward pass' intermediates.
        return jax.vjp(fn, jax.lax.optimization_barrier(x))[1](grad)

    wrapped.defvjp(lambda x: (fn(x), x), backward)
    return functools.update_wrapper(wrapped, fn)


@_from_input
def quick_gelu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(1.702 x)`, the GELU of the released CLIP weights."""
    # sigmoid(y) = (1 + tanh(y / 2)) / 2: a tanh costs less than exp and a division.
    return x * (0.5 + 0.5 * jnp.tanh(0.851 * x))


@_from_input
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, `x (1 + erf(x / sqrt 2)) / 2`, in float32 inside as torch's."""
    x32 = x.astype(jnp.float32)
    return (x32 * (0.5 + 0.5 * jax.lax.erf(x32 * 0.5**0.5))).astype(x.dtype)


@_from_input
def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU with the tanh approximation."""
    return jax.nn.gelu(x, approximate=True)


@_from_input
def silu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(x)`."""
    return jax.nn.silu(x)


@jax.custom_jvp
def cube_root(x: jax.Array) -> jax.Array:
    """The y with `y^3 / 3 + y = x`, a sigmoid without bounds (Andrew et al. 2013, 3).

    In closed form, `2 sinh(asinh(3 x / 2) / 3)`; the authors iterate.
    """
    return 2 * jnp.sinh(jnp.arcsinh(1.5 * x) / 3)


@cube_root.defjvp
def _cube_root_slope(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    y = cube_root(primals[0])
    return y, tangents[0] / (1 + jnp.square(y))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "cube_root": cube_root,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": lambda x: jnp.maximum(x, 0),
    "sigmoid": jax.nn.sigmoid,
    "silu": silu,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function called `name`; UserError with the nearest name if there is none."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    raise UserError(f"act is {name!r}{schema.suggest(name, ACTIVATIONS)}")
