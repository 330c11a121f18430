"""The patch discriminator of pix2pix (Isola et al. 2017), as VQGAN uses it.

Legend: b images, s pixels a side, g scores a side, c channels.
"""

import dataclasses

import flax.linen as nn
import jax

from mmjax import schema
from mmjax.nn.conv import Conv
from mmjax.nn.init import normal
from mmjax.nn.norm import BatchNorm, GroupNorm

KERNEL, SLOPE, WIDEST = 4, 0.2, 8


@dataclasses.dataclass(frozen=True)
class Spec:
    """The keys of `config.task.discriminator`; the defaults are VQGAN's.

    width: channels of the first convolution; each strided one has twice the channels
      of the one before, up to 8 times the width.
    depth: convolutions of stride 2; two of stride 1 follow.
    norm: "batch", as in pix2pix and VQGAN: the mean and variance of all rows of a
      step, of real and of generated images apart. "group": those of each image, which
      suits batches of a few images. "none".
    groups: of the group norms.
    dtype: of the convolutions' compute.
    """

    width: int = 64
    depth: int = 3
    norm: str = "batch"
    groups: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        schema.at_least(1, self, "width", "depth", "groups")
        if self.norm not in ("batch", "group", "none"):
            raise ValueError(f"norm is {self.norm!r}: use batch, group or none")
        if self.norm == "group" and 2 * self.width % self.groups:
            raise ValueError(
                f"width {self.width} x 2 must split over {self.groups} groups"
            )

    def side(self, image_size: int) -> int:
        """Scores a side of images of this size; below 1 there are none."""
        return image_size // 2**self.depth - 2


class PatchDiscriminator(nn.Module):
    """Scores of patches, higher where they look real.

    A score sees a square of 2^depth * 9 - 2 pixels a side (70 of depth 3). With batch
    norms call it in training with `mutable=["batch_stats"]`.
    """

    spec: Spec = Spec()

    @nn.compact
    def __call__(
        self, x_bss3: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Images float32 (b, s, s, 3) in [-1, 1] to scores (b, g, g), float32."""
        spec, x = self.spec, x_bss3
        for i in range(spec.depth + 1):
            normed = i > 0 and spec.norm != "none"
            x = self._conv(
                f"conv_{i}",
                spec.width * min(2**i, WIDEST),
                stride=2 if i < spec.depth else 1,
                use_bias=not (normed and spec.norm == "batch"),
            )(x)
            if normed and spec.norm == "batch":
                norm = BatchNorm(dtype=spec.dtype, name=f"norm_{i}")
                x = norm(x, train=train, axis=axis)
            elif normed:
                x = GroupNorm(spec.groups, dtype=spec.dtype, name=f"norm_{i}")(x)
            x = nn.leaky_relu(x, SLOPE)
        return self._conv("out", 1, use_bias=True)(x)[..., 0].astype("float32")

    def _conv(self, name: str, features: int, **how: int) -> Conv:
        how |= {"kernel": KERNEL, "padding": (1, 1), "dtype": self.spec.dtype}
        return Conv(features, kernel_init=normal(0.02), name=name, **how)
