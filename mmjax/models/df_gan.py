"""DF-GAN: a generator that reads the text at every scale, a one-way discriminator.

Tao et al. 2022 (arXiv 2008.05865), sections 3.2 to 3.4. What the paper leaves open
(kernels, biases, the factor of the discriminator's residuals) is as in the authors'
code (github.com/tobran/DF-GAN), where 256 px and width 32 are the paper's numbers.

Legend: b images, s pixels a side, h w places, c channels in, f channels out, z numbers
of noise, d numbers of the condition (a sentence vector), g side of the image's grid.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models.codec import depth_to_space
from mmjax.nn import convnet
from mmjax.nn.conv import Conv, avg_pool, space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.init import torch_default

SLOPE = 0.2  # of all leaky ReLUs
SMALLEST = 4  # side of the grid that the generator begins with
WIDEST = 8  # most channels, as a multiple of the width


def leaky(x: jax.Array) -> jax.Array:
    """`max(x, 0.2 x)`."""
    return jnp.maximum(x, SLOPE * x)


class Affine(nn.Module):
    """`scale(cond) * x + shift(cond)`, by channel; it begins as x itself.

    Both are MLPs with one hidden layer as wide as x.
    """

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, cond_bd: jax.Array) -> jax.Array:
        c, zeros = x_bhwc.shape[-1], nn.initializers.zeros

        def mlp(name: str, start: float) -> jax.Array:
            hidden_bc = nn.relu(Dense(c, name=f"{name}_in")(cond_bd))
            first = nn.initializers.constant(start)
            out = Dense(c, kernel_init=zeros, bias_init=first, name=f"{name}_out")
            return out(hidden_bc)[:, None, None]

        return mlp("scale", 1.0) * x_bhwc + mlp("shift", 0.0)


class DFBlock(nn.Module):
    """Deep text-image fusion: affine, leaky ReLU, affine, leaky ReLU (section 3.4)."""

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, cond_bd: jax.Array) -> jax.Array:
        for name in ("affine_0", "affine_1"):
            x_bhwc = leaky(Affine(name=name)(x_bhwc, cond_bd))
        return x_bhwc


class Conv3(nn.Module):
    """3x3 convolution with bias; as `convnet.Conv`, but for torch's initialisation."""

    features: int
    upsample: bool = False

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        c = x_bhwc.shape[-1]
        init = torch_default(9 * c)
        kernel = self.param("kernel", init, (3, 3, c, self.features))
        bias = self.param("bias", init, (self.features,))
        convolve = convnet.conv_upsampled if self.upsample else convnet.conv
        return convolve(x_bhwc, kernel) + bias


class UpBlock(nn.Module):
    """Residual block that doubles the side first, unless `upsample` is False.

    Fusion and the 1x1 convolution treat every pixel alone, so they come before the
    doubling: a quarter of the work for the same result.
    """

    features: int
    upsample: bool = True

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, cond_bd: jax.Array) -> jax.Array:
        y = DFBlock(name="fuse_0")(x_bhwc, cond_bd)
        y = Conv3(self.features, self.upsample, name="conv_0")(y)
        y = DFBlock(name="fuse_1")(y, cond_bd)
        y = Conv3(self.features, name="conv_1")(y)
        if x_bhwc.shape[-1] != self.features:
            x_bhwc = Dense(self.features, name="shortcut")(x_bhwc)
        return y + (convnet.upsample(x_bhwc) if self.upsample else x_bhwc)


class DownBlock(nn.Module):
    """Residual block that halves the side; the residual's factor begins at 0."""

    features: int

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        y = Conv(self.features, 4, 2, padding=(1, 1), name="conv_0")(x_bhwc)
        y = leaky(Conv(self.features, name="conv_1")(leaky(y)))
        factor = self.param("factor", nn.initializers.zeros, ())
        x = avg_pool(x_bhwc, 2)  # before the 1x1 convolution: the same for less
        if x.shape[-1] != self.features:
            x = Dense(self.features, name="shortcut")(x)
        return x + factor * y


class Generator(nn.Module):
    """Noise (b, z) and condition (b, d) to images (b, s, s, 3) in (-1, 1).

    Both, one after the other, are what every DFBlock reads; noise alone makes the grid.
    """

    channels: tuple[int, ...]  # of the first grid, and after every doubling
    base_blocks: int
    patch: int

    @nn.compact
    def __call__(self, noise_bz: jax.Array, e_bd: jax.Array) -> jax.Array:
        g, first = SMALLEST, self.channels[0]
        cond_bd = jnp.concatenate([noise_bz, e_bd], axis=-1)
        x = Dense(g * g * first, name="grid")(noise_bz).reshape(-1, g, g, first)
        blocks = [(first, False)] * self.base_blocks
        blocks += [(features, True) for features in self.channels[1:]]
        for i, (features, upsample) in enumerate(blocks):
            x = UpBlock(features, upsample, name=f"block_{i}")(x, cond_bd)
        x = Conv3(3 * self.patch**2, name="out")(leaky(x))
        return jnp.tanh(depth_to_space(x, self.patch))


class Discriminator(nn.Module):
    """Images in [-1, 1] to features (b, 4, 4, c), and with a condition to scores."""

    channels: tuple[int, ...]  # of the images' grid, and after every halving
    patch: int

    def setup(self) -> None:
        width = self.channels[0]
        self.stem = Conv(width, use_bias=True)
        self.blocks = [DownBlock(features) for features in self.channels[1:]]
        self.joint = Conv(2 * width)
        self.out = Conv(1, SMALLEST, padding=(0, 0))

    def features(self, x_bss3: jax.Array) -> jax.Array:
        x = self.stem(space_to_depth(x_bss3, self.patch))
        for block in self.blocks:
            x = block(x)
        return x

    def scores(self, x_bggc: jax.Array, e_bd: jax.Array) -> jax.Array:
        """One-way output (section 3.3): one number (b,), of image and text at once."""
        shape = (*x_bggc.shape[:3], e_bd.shape[-1])
        e_bggd = jnp.broadcast_to(e_bd[:, None, None], shape)
        y = leaky(self.joint(jnp.concatenate([x_bggc, e_bggd], axis=-1)))
        return self.out(y)[:, 0, 0, 0]


class DfGan(nn.Module):
    """Both players. Parameters are `generator/...` and `discriminator/...`.

    Fields:
      image_size: pixels a side, 4 * patch times a power of two from 2 on.
      width: channels at the images' grid; every halving of the side doubles them, up
        to 8 times.
      noise: numbers z that the generator begins with.
      base_blocks: blocks at 4 x 4 before those that double the side: 0 in the authors'
        code, 1 in its first version, which so has 7 at 256 px.
      patch: the images' grid has a place for so many pixels a side; 1 in the paper.
    """

    image_size: int = 256
    width: int = 32
    noise: int = 100
    base_blocks: int = 0
    patch: int = 1

    def setup(self) -> None:
        channels = self.channels
        self.generator = Generator(channels[::-1], self.base_blocks, self.patch)
        self.discriminator = Discriminator(channels, self.patch)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each grid, from the images' to that of 4 x 4."""
        times, odd = divmod(self.image_size, SMALLEST * self.patch)
        if odd or times < 2 or times & (times - 1):
            raise UserError(
                f"image_size is {self.image_size} and patch {self.patch}: use an image "
                f"of {SMALLEST * self.patch} pixels times 2, 4, 8, ..."
            )
        grids = times.bit_length()
        return tuple(self.width * min(2**i, WIDEST) for i in range(grids))

    def __call__(self, noise_bz: jax.Array, e_bd: jax.Array) -> jax.Array:
        """Scores (b,) of generated images."""
        return self.scores(self.features(self.generate(noise_bz, e_bd)), e_bd)

    def generate(self, noise_bz: jax.Array, e_bd: jax.Array) -> jax.Array:
        """Images float32 (b, s, s, 3) in (-1, 1)."""
        return self.generator(noise_bz, e_bd)

    def features(self, x_bss3: jax.Array) -> jax.Array:
        """The discriminator's, (b, 4, 4, c), of images in [-1, 1]."""
        return self.discriminator.features(x_bss3)

    def scores(self, x_bggc: jax.Array, e_bd: jax.Array) -> jax.Array:
        """(b,), higher for real images that match, of features and conditions."""
        return self.discriminator.scores(x_bggc, e_bd)
