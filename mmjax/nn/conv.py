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
