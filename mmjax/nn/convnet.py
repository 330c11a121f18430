"""Convolutions and resampling by two for networks without normalisation, on NHWC.

Weights are drawn N(0, 1 / fan-in) and biases are zero, as in OpenAI's dVAE.

Legend: b images, h w pixels, m pixels of all images, c channels in, f channels out.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.init import Initializer, normal

_NHWC = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """Square convolution with bias, zero padding `kernel // 2`, kernel (k, k, c, f).

    1x1 convolutions are `point`.

    Fields:
      upsample: convolve the image of twice the side that repeats every pixel in
        2 x 2 places. Same parameters, same result, 4/9 of the multiplications: see
        `conv_upsampled`. For kernel 3.
      gain: factor of the result, put on the parameters: that spares a pass over the
        image each way.
      kernel_init: None is N(0, 1 / fan-in).
    """

    features: int
    kernel: int = 3
    upsample: bool = False
    gain: float = 1.0
    dtype: str = "float32"
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        size, channels = self.kernel, x_bhwc.shape[-1]
        init = self.kernel_init or normal((size * size * channels) ** -0.5)
        kernel = self.param("kernel", init, (size, size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, bias = scaled(kernel, bias, self.gain)
        convolve = conv_upsampled if self.upsample else conv
        y_bhwf = convolve(x_bhwc.astype(self.dtype), kernel.astype(self.dtype))
        return y_bhwf + bias.astype(self.dtype)


def scaled(
    kernel: jax.Array, bias: jax.Array, gain: float
) -> tuple[jax.Array, jax.Array]:
    """(gain * kernel, gain * bias); the parameters themselves where gain is 1."""
    return (kernel, bias) if gain == 1.0 else (gain * kernel, gain * bias)


class Point(Dense):
    """A 1x1 convolution: `Dense` on every pixel's channels. `gain` is as in `Conv`."""

    gain: float = 1.0

    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        kernel, bias = scaled(*self.weights(x_bhwc.shape[-1]), self.gain)
        x_mc = x_bhwc.reshape(-1, x_bhwc.shape[-1]).astype(self.dtype)
        return mix(x_mc, kernel).reshape(*x_bhwc.shape[:-1], self.features) + bias


def point(
    features: int,
    *,
    width: int,
    gain: float = 1.0,
    dtype: str = "float32",
    name: str | None = None,
) -> Point:
    """A 1x1 convolution from `width` channels, kernel (width, features)."""
    return Point(
        features,
        kernel_init=normal(width**-0.5),
        bias_init=nn.initializers.zeros,
        gain=gain,
        dtype=dtype,
        name=name,
    )


@jax.custom_vjp
def mix(x_mc: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` for many more rows than channels."""
    return x_mc @ kernel


def _mix_backward(held: tuple, dy_mf: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_mc, kernel = held
    # XLA's CPU back-end turns the second factor of a product over rows around in
    # memory, and does what led to it in that order too: the wider one goes first, and
    # the barriers keep it there, made once and row by row. Two to six times faster.
    x_mc, dy_mf = jax.lax.optimization_barrier((x_mc, dy_mf))
    over_rows = (((0,), (0,)), ((), ()))
    if dy_mf.shape[1] < x_mc.shape[1]:
        turned = jax.lax.dot_general(dy_mf, x_mc, over_rows)
        dkernel = jax.lax.optimization_barrier(turned).T
    else:
        dkernel = jax.lax.dot_general(x_mc, dy_mf, over_rows)
    return dy_mf @ kernel.T, dkernel


mix.defvjp(lambda x_mc, kernel: (x_mc @ kernel, (x_mc, kernel)), _mix_backward)


@jax.custom_vjp
def conv(x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 1, zero padding `k // 2`; kernel (k, k, c, f)."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x_bhwc, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=_NHWC
    )


def _conv_backward(held: tuple, dy_bhwf: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_bhwc, kernel = held
    size, _, c, f = kernel.shape
    from_x = functools.partial(_correlate, pad=size // 2)

    def from_dy(x_bhwc: jax.Array, dy_bhwf: jax.Array) -> jax.Array:
        turned = _correlate(dy_bhwf, x_bhwc, pad=size // 2)[::-1, ::-1]
        return jnp.swapaxes(turned, 2, 3)

    # XLA's CPU back-end turns the first of the two around in memory, number by number:
    # with the narrower one first, a bottleneck's gradient takes half the time.
    narrow = from_dy if f < c else from_x
    dkernel = jax.lax.platform_dependent(x_bhwc, dy_bhwf, cpu=narrow, default=from_x)
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return conv(dy_bhwf, turned), dkernel


def _correlate(x_bhwc: jax.Array, y_bhwf: jax.Array, *, pad: int) -> jax.Array:
    """Sums over images and places of x y', y shifted by up to `pad`: (k, k, c, f)."""
    numbers, padding = ("CHWN", "IHWO", "NHWC"), [(pad, pad)] * 2
    sums_khwf = jax.lax.conv_general_dilated(
        x_bhwc, y_bhwf, (1, 1), padding, dimension_numbers=numbers
    )
    return jnp.moveaxis(sums_khwf, 0, 2)


conv.defvjp(lambda x_bhwc, k: (conv(x_bhwc, k), (x_bhwc, k)), _conv_backward)


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


@jax.custom_vjp
def max_pool(x_bhwc: jax.Array) -> jax.Array:
    """Maximum over tiles of 2 x 2; of equal ones the first has the gradient."""
    return _tiles(x_bhwc).max((2, 4))


def _tiles(x_bhwc: jax.Array) -> jax.Array:
    b, h, w, c = x_bhwc.shape
    return x_bhwc.reshape(b, h // 2, 2, w // 2, 2, c)


def _max_pool_backward(x_bhwc: jax.Array, dy_bhwc: jax.Array) -> tuple[jax.Array]:
    # Comparisons alone, in one pass: a quarter of the time of jnp.max's own gradient,
    # which divides among equals, and a thirtieth of that of reduce_window's.
    x_bh2w2c = _tiles(x_bhwc)
    y_bhwc = x_bh2w2c.max((2, 4))
    first_bhwc = jnp.full(y_bhwc.shape, 3)
    for place in (2, 1, 0):
        hit_bhwc = x_bh2w2c[:, :, place // 2, :, place % 2] == y_bhwc
        first_bhwc = jnp.where(hit_bhwc, place, first_bhwc)
    places = jnp.arange(4).reshape(2, 1, 2, 1)
    chosen = first_bhwc[:, :, None, :, None] == places
    dx = jnp.where(chosen, dy_bhwc[:, :, None, :, None], 0)
    return (dx.reshape(x_bhwc.shape),)


max_pool.defvjp(lambda x_bhwc: (max_pool(x_bhwc), x_bhwc), _max_pool_backward)
