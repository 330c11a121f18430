"""Convolutional image towers: CLIP's modified ResNet and a small one for CPUs.

Every image tower maps float32 images (b, h, w, 3), already normalised, to features
(b, `features`) before the joint projection, and takes `train` and `axis` (the mapped
axis under pmap, see `nn.norm.BatchNorm`) whether or not it needs them.
"""

import flax.linen as nn
import jax

from mmjax.nn import divide
from mmjax.nn.activation import activation
from mmjax.nn.attention import AttentionPool
from mmjax.nn.conv import Conv, avg_pool, space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.norm import BatchNorm, GroupNorm
from mmjax.nn.transformer import remat


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool where strided, 1x1; the last norm's gain starts at 0."""

    width: int
    stride: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array, train: bool, axis: str | None) -> jax.Array:
        def norm(y: jax.Array, name: str, gain: float = 1.0) -> jax.Array:
            module = BatchNorm(scale_init=gain, dtype=self.dtype, name=name)
            return module(y, train=train, axis=axis)

        def point(features: int, name: str) -> Dense:
            return Dense(features, use_bias=False, dtype=self.dtype, name=name)

        out = 4 * self.width
        y = nn.relu(norm(point(self.width, "reduce")(x_bhwc), "norm_reduce"))
        y = Conv(self.width, dtype=self.dtype, name="conv")(y)
        y = avg_pool(nn.relu(norm(y, "norm_conv")), self.stride)
        y = norm(point(out, "expand")(y), "norm_expand", gain=0.0)
        if self.stride > 1 or x_bhwc.shape[-1] != out:
            x_bhwc = avg_pool(x_bhwc, self.stride)
            x_bhwc = norm(point(out, "skip")(x_bhwc), "norm_skip")
        return nn.relu(x_bhwc + y)


class ResNet(nn.Module):
    """The modified ResNet of CLIP (Radford et al. 2021, 2.4), attention-pooled.

    Three-convolution stem and average pooling before every strided step. Holds
    `batch_stats`. `heads` 0 means features / 64. The original's output projection
    `attnpool.c_proj` is the joint projection, which has a bias here.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    heads: int = 0
    image_size: int = 224
    remat: str = "none"
    dtype: str = "float32"

    project, project_bias = True, True

    @property
    def features(self) -> int:
        return 32 * self.width

    @nn.compact
    def __call__(
        self,
        x_bhwc: jax.Array,
        *,
        train: bool = False,
        axis: str | None = None,
        with_map: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features (b, f); `with_map`, also the map (b, h, w, f) that is pooled."""
        divide.check("a ResNet's image_size", self.image_size, 32)
        x = x_bhwc.astype(self.dtype)
        stem = [(self.width // 2, 2), (self.width // 2, 1), (self.width, 1)]
        for i, (features, stride) in enumerate(stem, 1):
            x = Conv(features, 3, stride, dtype=self.dtype, name=f"conv_{i}")(x)
            norm = BatchNorm(dtype=self.dtype, name=f"norm_{i}")
            x = nn.relu(norm(x, train=train, axis=axis))
        x = avg_pool(x, 2)
        block = remat(Bottleneck, self.remat, static_argnums=(2, 3))
        for stage, depth in enumerate(self.depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"stage_{stage}_block_{i}"
                module = block(self.width * 2**stage, stride, self.dtype, name=name)
                x = module(x, train, axis)
        x_btw = x.reshape(x.shape[0], -1, x.shape[-1])
        heads = self.heads or self.features // 64
        pooled_bf = AttentionPool(heads, self.dtype, name="pool")(x_btw)
        return (pooled_bf, x) if with_map else pooled_bf


class ResidualConv(nn.Module):
    """`x + conv(act(norm(conv(act(norm(x))))))`, 3x3, group norms."""

    groups: int = 8
    act: str = "gelu"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        act, width = activation(self.act), x_bhwc.shape[-1]
        y = x_bhwc
        for i in (1, 2):
            y = act(GroupNorm(self.groups, dtype=self.dtype, name=f"norm_{i}")(y))
            y = Conv(width, dtype=self.dtype, name=f"conv_{i}")(y)
        gain = self.param("gain", nn.initializers.ones, (width,))
        return x_bhwc + y * gain.astype(self.dtype)


class ConvTower(nn.Module):
    """A small residual conv net for 32-64 px images, quick on XLA's CPU back-end.

    Stage s has `depths[s]` residual blocks of width `width * 2**s`; between stages
    2x2 pixels become one by a dense map. Mean-pooled; no batch statistics, so rows do
    not couple. Stages shrink the image by 2 each, `stem` by its own factor before.
    """

    width: int = 32
    depths: tuple[int, ...] = (1, 1, 1, 1)
    stem: int = 2
    groups: int = 8
    image_size: int = 32
    act: str = "gelu"
    remat: str = "none"
    dtype: str = "float32"

    project, project_bias = True, False

    @property
    def features(self) -> int:
        return self.width * 2 ** (len(self.depths) - 1)

    @nn.compact
    def __call__(
        self,
        x_bhwc: jax.Array,
        *,
        train: bool = False,
        axis: str | None = None,
        with_map: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features (b, f); `with_map`, also the map (b, h, w, f) that is pooled."""
        del train, axis  # no batch statistics
        factor = self.stem * 2 ** (len(self.depths) - 1)
        divide.check("a conv tower's image_size", self.image_size, factor)
        divide.check("conv width", self.width, self.groups, "groups")
        x = x_bhwc.astype(self.dtype)
        block = remat(ResidualConv, self.remat)
        for stage, depth in enumerate(self.depths):
            x = space_to_depth(x, 2 if stage else self.stem)
            width = self.width * 2**stage
            x = Dense(width, dtype=self.dtype, name=f"down_{stage}")(x)
            for i in range(depth):
                name = f"stage_{stage}_block_{i}"
                x = block(self.groups, self.act, self.dtype, name=name)(x)
        x = GroupNorm(self.groups, dtype=self.dtype, name="norm")(x)
        x = activation(self.act)(x)
        return (x.mean((1, 2)), x) if with_map else x.mean((1, 2))
