"""Low-rank fusion (Liu et al. 2018, LMF). Legend: see the package; r rank."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.nn.fusion import base


class Block(base.Base):
    """`tensor`'s dense layer with a kernel that is a sum of `rank` products.

    `h = sum_r v_r prod_m (W_m^r [x_m, 1])`, equation 7 with the weights of the
    authors' code. Features are rectified, as `tensor`'s are.
    """

    width: int = 32
    rank: int = 4

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        glorot = nn.initializers.glorot_normal(batch_axis=0)
        product_btrw = 1.0
        for name in sorted(parts):
            x_btd = base.with_one(parts[name])
            shape = self.rank, x_btd.shape[-1], self.width
            factor_rdw = self.param(f"{name}_kernel", glorot, shape)
            product_btrw *= jnp.einsum("btd,rdw->btrw", x_btd, factor_rdw)
        init = nn.initializers.normal(self.rank**-0.5)
        weight_r = self.param("weight", init, (self.rank,))
        bias_w = self.param("bias", nn.initializers.zeros, (self.width,))
        fused_btw = jnp.einsum("btrw,r->btw", product_btrw, weight_r) + bias_w
        return self.scored(nn.relu(fused_btw), wanted)
