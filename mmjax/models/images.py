"""What image tokenizers and autoencoders share about images."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UserError


def require(x_bhw3: jax.Array, size: int, what: str = "model") -> None:
    """UserError unless images are of size x size x 3; `what` takes them."""
    if x_bhw3.ndim != 4 or x_bhw3.shape[1:] != (size, size, 3):
        raise UserError(
            f"the {what} takes (b, {size}, {size}, 3), got images of "
            f"{x_bhw3.shape}: resize them, or set its image_size"
        )


def with_map(tower: Any, x_bhw3: jax.Array) -> dict[str, jax.Array]:
    """A tower's `features` (b, f) and `map` (b, h, w, f), float32."""
    pooled_bf, map_bhwf = tower(x_bhw3, with_map=True)
    return {
        "features": pooled_bf.astype(jnp.float32),
        "map": map_bhwf.astype(jnp.float32),
    }


def grid(image_size: int, factor: int, where: str, code: str = "code") -> int:
    """Codes a side; UserError where a side is no multiple of a code's `factor`."""
    if image_size % factor:
        raise UserError(
            f"{where}.image_size is {image_size} and a {code} stands for "
            f"{factor} pixels a side: use a multiple of {factor}"
        )
    return image_size // factor


def shown(y_bhw3: jax.Array) -> jax.Array:
    """A network's images in [-1, 1], clipped and brought to [0, 1]."""
    return jnp.clip(0.5 * y_bhw3 + 0.5, 0.0, 1.0)


def gaussian_nll(
    x_bhw3: jax.Array, mean_bhw3: jax.Array, variance: jax.Array
) -> jax.Array:
    """-ln N(x; mean, variance) in nats, (b,), summed over an image."""
    error_bhw3 = jnp.square(x_bhw3 - mean_bhw3)
    nll_bhw3 = 0.5 * (error_bhw3 / variance + jnp.log(2 * math.pi * variance))
    return nll_bhw3.sum((1, 2, 3))
