"""LPIPS' network (Zhang et al. 2018): VGG-16 and a weight for every channel it gives.

Legend: b images, h w pixels, g side of a stage's grid, c channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import convnet
from mmjax.nn.conv import Conv

# ImageNet's mean and deviation as LPIPS rounds them, of pixels in [-1, 1]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Features of the last ReLU of each stage of a VGG (Simonyan and Zisserman 2015).

    Stage k has `depths[k]` 3x3 convolutions of `widths[k]` channels; between stages the
    side is halved by the maximum. Parameters: `stage_{k}_conv_{i}`, and `stage_{k}`,
    the weights of its channels.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhw3: jax.Array) -> dict[str, jax.Array]:
        """Images float32 (b, h, w, 3) in [0, 1] to features (b, g, g, c) by stage."""
        x = (2.0 * x_bhw3 - 1.0 - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        stages = {}
        for k, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            x = convnet.max_pool(x) if k else x
            for i in range(depth):
                name = f"stage_{k}_conv_{i}"
                conv = Conv(width, use_bias=True, dtype=self.dtype, name=name)
                x = nn.relu(conv(x))
            stages[f"stage_{k}"] = x
            self.param(f"stage_{k}", nn.initializers.ones, (width,))
        return stages
