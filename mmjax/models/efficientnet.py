"""EfficientNet-Lite 0 to 4 (Tan and Le 2019, without squeeze-and-excitation).

Legend: b rows, h w pixels, c channels.
"""

import math

import flax.linen as nn
import jax

from mmjax.nn.conv import Conv, DepthwiseConv, same_padding
from mmjax.nn.dense import Dense
from mmjax.nn.norm import BatchNorm

# Of the unscaled network, by stage: repeats, kernel, stride, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Name: width factor, depth factor, pixels a side.
SIZES = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}
_EPS = 1e-3  # of the batch norms


def blocks(
    width_factor: float, depth_factor: float, stages: tuple = STAGES
) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels) of every block of a scaled network.

    Depths of the first and the last stage, the stem and the head are not scaled.
    """
    out = []
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(stages):
        if 0 < number < len(stages) - 1:
            repeats = math.ceil(depth_factor * repeats)
        width = _rounded(channels * width_factor)
        for i in range(repeats):
            out.append((kernel, 1 if i else stride, expansion, width))
    return out


def _rounded(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor that loses no more than a tenth."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def _normed(y: jax.Array, name: str, dtype: str) -> jax.Array:
    """Batch norm by the statistics of the weights, in training as well."""
    return BatchNorm(eps=_EPS, dtype=dtype, name=name)(y, train=False)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a skip where shapes fit."""

    features: int
    kernel: int
    stride: int
    expansion: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        y, width = x_bhwc, x_bhwc.shape[-1]
        if self.expansion > 1:
            y = Dense(width * self.expansion, False, dtype=self.dtype, name="expand")(y)
            y = jax.nn.relu6(_normed(y, "norm_expand", self.dtype))
        y = DepthwiseConv(self.kernel, self.stride, self.dtype, name="depthwise")(y)
        y = jax.nn.relu6(_normed(y, "norm_depthwise", self.dtype))
        y = Dense(self.features, False, dtype=self.dtype, name="project")(y)
        y = _normed(y, "norm_project", self.dtype)
        return x_bhwc + y if y.shape == x_bhwc.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite as an image tower, mean-pooled to (b, head) features.

    ReLU6 and no squeeze-and-excitation; convolutions are padded as TensorFlow's "SAME".
    Batch norms keep the statistics they were loaded with, so that rows do not couple;
    a tower to train from nothing is a `ResNet` or a `ConvTower`.

    width_factor, depth_factor: of the scaled network, see `SIZES`. stem, head: channels
    of the first and last convolution. stages: of the unscaled network, see `STAGES`.
    """

    width_factor: float = 1.0
    depth_factor: float = 1.0
    image_size: int = 224
    stem: int = 32
    head: int = 1280
    stages: tuple[tuple[int, ...], ...] = STAGES
    dtype: str = "float32"

    project, project_bias = True, False

    @property
    def features(self) -> int:
        return self.head

    @nn.compact
    def __call__(
        self,
        x_bhwc: jax.Array,
        *,
        train: bool = False,
        axis: str | None = None,
        with_map: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features (b, head); `with_map`, also (b, h, w, head) before the mean."""
        del train, axis  # the statistics are frozen
        padding = same_padding(x_bhwc.shape[1], 3, 2)
        stem = Conv(self.stem, 3, 2, padding=padding, dtype=self.dtype, name="stem")
        y = jax.nn.relu6(_normed(stem(x_bhwc), "norm_stem", self.dtype))
        numbers = blocks(self.width_factor, self.depth_factor, self.stages)
        for i, (kernel, stride, expansion, width) in enumerate(numbers):
            args = width, kernel, stride, expansion, self.dtype
            y = InvertedBottleneck(*args, name=f"block_{i}")(y)
        y = Dense(self.head, False, dtype=self.dtype, name="head")(y)
        y = jax.nn.relu6(_normed(y, "norm_head", self.dtype))
        return (y.mean((1, 2)), y) if with_map else y.mean((1, 2))
