"""Tensor fusion (Zadeh et al. 2017, TFN). Legend: see the package."""

import math

import flax.linen as nn

from mmjax.errors import UserError
from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base

_LARGEST = 1 << 20  # weights of one fused column


class Block(base.Base):
    """A dense layer over all products of columns of different parts.

    Each part has a one after its columns (equation 1), so that products of fewer parts
    are among them. Features are rectified. UserError where there are more products than
    2^20: low_rank never forms them.
    """

    width: int = 32

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        sizes = {name: parts[name].shape[-1] + 1 for name in sorted(parts)}
        if math.prod(sizes.values()) > _LARGEST:
            raise UserError(
                f"block tensor multiplies columns {sizes}, "
                f"{math.prod(sizes.values())} products, at most {_LARGEST}: give "
                "fields fewer columns, or use the block low_rank"
            )
        product_btp = None
        for name in sizes:
            x_btd = base.with_one(parts[name])
            if product_btp is not None:
                x_btd = product_btp[..., :, None] * x_btd[..., None, :]
            product_btp = x_btd.reshape(*x_btd.shape[:2], -1)
        return self.scored(nn.relu(Dense(self.width, name="fuse")(product_btp)), wanted)
