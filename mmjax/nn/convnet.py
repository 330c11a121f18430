"""Convolutions and resampling by two for networks without normalisation, on NHWC.

Weights are drawn N(0, 1 / fan-in) and biases are zero, as in OpenAI's dVAE.

Legend: b images, h w pixels, c channels in, f channels out.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.init import normal

_NHWC = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """Square convolution with bias, zero padding `kernel // 2`, kernel (k, k, c, f).

    1x1 convolutions are `point`.

    Fields:
      upsample: convolve the picture of twice the side that repeats every pixel in
        2 x 2 places. Same parameters, same result, 4/9 of the multiplications: see
        `conv_upsampled`. For kernel 3.
    """

    features: int
    kernel: int = 3
    upsample: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        size, channels = self.kernel, x_bhwc.shape[-1]
        init = normal((size * size * channels) ** -0.5)
        kernel = self.param("kernel", init, (size, size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        convolve = conv_upsampled if self.upsample else conv
        y_bhwf = convolve(x_bhwc.astype(self.dtype), kernel.astype(self.dtype))
        return y_bhwf + bias.astype(self.dtype)


def point(features: int, *, width: int, dtype: str = "float32", name: str) -> Dense:
    """A 1x1 convolution from `width` channels, kernel (width, features)."""
    return Dense(
        features,
        kernel_init=normal(width**-0.5),
        bias_init=nn.initializers.zeros,
        dtype=dtype,
        name=name,
    )


def conv(x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, zero padding `k // 2`; kernel (k, k, c, f)."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x_bhwc, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=_NHWC
    )


def conv_upsampled(x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv(upsample(x), kernel)` for a 3x3 kernel, computed at the low resolution.

    A 3x3 window over repeated pixels sees 2x2 different ones, and which of its taps
    fall together depends on the parity of row and column alone. So the four parities
    are four 2x2 kernels, here one of four times the channels, whose results interlace.
    """
    b, h, w, _ = x_bhwc.shape
    f = kernel.shape[-1]
    # Padded by hand: with 2x2 kernels and padding inside the convolution, XLA's CPU
    # back-end takes fifty times as long over the kernel's gradient.
    x_bhwc = jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y_bhwf = jax.lax.conv_general_dilated(
        x_bhwc, _parities(kernel), (1, 1), "VALID", dimension_numbers=_NHWC
    )
    y_bhw2f = y_bhwf.reshape(b, h + 1, w + 1, 2, 2, f)
    rows = [
        jnp.stack([y_bhw2f[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3)
        for i in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, f)


def _parities(kernel: jax.Array) -> jax.Array:
    """(3, 3, c, f) to (2, 2, c, 4 f): taps that meet the same pixel, added up."""

    def split(kernel: jax.Array, axis: int) -> list[jax.Array]:
        one, two, three = jnp.split(kernel, 3, axis)
        even = jnp.concatenate([one, two + three], axis)
        odd = jnp.concatenate([one + two, three], axis)
        return [even, odd]

    both = [k for rows in split(kernel, 0) for k in split(rows, 1)]
    return jnp.concatenate(both, axis=-1)


def upsample(x_bhwc: jax.Array) -> jax.Array:
    """Every pixel in 2 x 2 places (nearest neighbour), (b, 2h, 2w, c)."""
    b, h, w, c = x_bhwc.shape
    x = jnp.broadcast_to(x_bhwc[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def max_pool(x_bhwc: jax.Array) -> jax.Array:
    """Maximum over tiles of 2 x 2; the gradient is shared among equal maxima.

    A reshape and a reduction: `reduce_window`'s gradient takes eight times as long
    on CPU.
    """
    b, h, w, c = x_bhwc.shape
    return x_bhwc.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
