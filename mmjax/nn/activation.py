"""Activations by name, as configs and checkpoints spell them."""

import difflib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.errors import UserError


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(1.702 x)`, the GELU of the released CLIP weights."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: jax.Array) -> jax.Array:
    """Exact (erf) GELU."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU with the tanh approximation."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": lambda x: jnp.maximum(x, 0),
    "silu": jax.nn.silu,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function called `name`; UserError with the nearest name if there is none."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    near = difflib.get_close_matches(name, ACTIVATIONS, 1, 0.0)[0]
    raise UserError(
        f"act is {name!r}: did you mean {near!r}? Known: {', '.join(ACTIVATIONS)}"
    )
