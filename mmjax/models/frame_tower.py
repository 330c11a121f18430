"""A tower over time: an embedding of every frame of a series.

Legend: b rows, t frames, p columns, w width, d embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm


class FrameTower(nn.Module):
    """Residual convolutions over time between two linear maps.

    embed_dim: columns of an embedding. width, depth: of the residual blocks. reach:
      frames on either side that a block sees; 0 looks at each frame alone. causal:
      whether they are all before the frame, twice as many.
    """

    embed_dim: int
    width: int = 64
    depth: int = 2
    reach: int = 2
    causal: bool = False

    @nn.compact
    def __call__(self, x_btp: jax.Array, mask_bt: jax.Array) -> jax.Array:
        """(b, t, d), of frames where the mask is True; others see none of them."""
        mask_bt1 = mask_bt[..., None]
        first = -2 * self.reach if self.causal else -self.reach
        taps = range(first, first + 2 * self.reach + 1)
        x_btw = Dense(self.width, name="in")(x_btp)
        for number in range(self.depth):
            h_btw = LayerNorm(name=f"norm_{number}")(x_btw) * mask_bt1
            near_btk = jnp.concatenate([moved(h_btw, by) for by in taps], -1)
            h_btw = nn.gelu(Dense(self.width, name=f"mix_{number}")(near_btk))
            x_btw = x_btw + Dense(self.width, name=f"out_{number}")(h_btw)
        return Dense(self.embed_dim, name="embed")(LayerNorm(name="norm")(x_btw))


def moved(x_btw: jax.Array, by: int) -> jax.Array:
    """Frame t + by at frame t; zeros beyond the ends."""
    frames = x_btw.shape[1]
    padded = jnp.pad(x_btw, ((0, 0), (max(-by, 0), max(by, 0)), (0, 0)))
    start = max(by, 0)
    return padded[:, start : start + frames]


class FrameTowers(nn.Module):
    """Two towers into one space, of unit length."""

    first: FrameTower
    second: FrameTower

    def __call__(
        self,
        first_btp: jax.Array,
        first_mask_bt: jax.Array,
        second_bsq: jax.Array,
        second_mask_bs: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """(b, t, d) and (b, s, d)."""
        rows = (
            self.first(first_btp, first_mask_bt),
            self.second(second_bsq, second_mask_bs),
        )
        return jax.tree.map(
            lambda x: x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-6),
            rows,
        )
