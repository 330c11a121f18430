"""Convolutions and pooling on NHWC images."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.init import Initializer, torch_default


class Conv(nn.Module):
    """Square convolution, kernel (k, k, in, out), torch's default initialisation.

    padding: zeros before and after, on both axes; None is `kernel // 2`. 1x1
    convolutions are `Dense`. kernel_init: of the kernel, where it is not the default.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    use_bias: bool = False
    padding: tuple[int, int] | None = None
    kernel_init: Initializer | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        size, channels = self.kernel, x_bhwc.shape[-1]
        padding = self.padding or (size // 2, size // 2)
        init = torch_default(size * size * channels)
        shape = (size, size, channels, self.features)
        kernel = self.param("kernel", self.kernel_init or init, shape)
        y = jax.lax.conv_general_dilated(
            x_bhwc.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            [padding] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
        return y


class DepthwiseConv(nn.Module):
    """A square filter for each channel, kernel (k, k, 1, c), without a bias.

    Padded as TensorFlow's "SAME": ceil(side / stride) numbers come out. Written as a
    sum of shifted images, which XLA's CPU back-end fuses, where its grouped convolution
    is many times slower.
    """

    kernel: int = 3
    stride: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        size, stride, (_, h, w, channels) = self.kernel, self.stride, x_bhwc.shape
        init = torch_default(size * size)
        kernel = self.param("kernel", init, (size, size, 1, channels))
        kernel = kernel.astype(self.dtype)
        padding = [same_padding(side, size, stride) for side in (h, w)]
        x = jnp.pad(x_bhwc.astype(self.dtype), [(0, 0), *padding, (0, 0)])
        rows, columns = -(-h // stride), -(-w // stride)
        return sum(
            kernel[i, j, 0] * x[:, i:, j:][:, ::stride, ::stride][:, :rows, :columns]
            for i in range(size)
            for j in range(size)
        )


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after by TensorFlow's "SAME": the odd one comes after."""
    left = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return left // 2, left - left // 2


def avg_pool(x_bhwc: jax.Array, size: int) -> jax.Array:
    """Mean over size x size tiles; rows and columns left over are dropped."""
    if size == 1:
        return x_bhwc
    b, h, w, c = x_bhwc.shape
    x_bhwc = x_bhwc[:, : h // size * size, : w // size * size]
    return x_bhwc.reshape(b, h // size, size, w // size, size, c).mean((2, 4))


def space_to_depth(x_bhwc: jax.Array, size: int) -> jax.Array:
    """Tiles of size x size pixels as channels (row, column, channel order)."""
    b, h, w, c = x_bhwc.shape
    x = x_bhwc.reshape(b, h // size, size, w // size, size, c)
    x = jnp.moveaxis(x, 2, 3)
    return x.reshape(b, h // size, w // size, size * size * c)
