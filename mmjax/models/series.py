"""From one series to another, step by step: convolutions or LSTMs.

Legend: b rows, s steps of the source, t of the target, p columns, w width, d columns of
the target.
"""

import flax.linen as nn
import jax
import numpy as np

from mmjax.models.frame_tower import FrameTower
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm

KINDS = ("conv", "lstm")


class Translator(nn.Module):
    """Steps of the target from steps of the source, of any two rates.

    Both series begin together, and step k of the target's t ends with the source's step
    ceil((k + 1) s / t). A causal translator hears no later one, or, with `lookahead`,
    is that many steps of the target late: so it can speak along.

    Fields:
      out, steps: columns d and steps t of the target.
      kind: "conv" (residual convolutions) or "lstm" (where it is not causal, a second
        one runs backwards, and each has half the width).
      reach: steps on either side that a convolution sees; twice as many before where
        it is causal.
      speakers: rows of a table, one of which is added to every step; 0: none.
    """

    out: int
    steps: int
    kind: str = "conv"
    width: int = 64
    depth: int = 2
    reach: int = 4
    causal: bool = False
    lookahead: int = 0
    speakers: int = 0

    @nn.compact
    def __call__(
        self,
        x_bsp: jax.Array,
        mask_bs: jax.Array,
        speaker_b: jax.Array | None = None,
    ) -> jax.Array:
        """(b, t, d)."""
        x_bsw = Dense(self.width, name="in")(x_bsp * mask_bs[..., None])
        if self.speakers:
            shape = (self.speakers, self.width)
            table = self.param("speaker_embedding", normal(0.02), shape)
            x_bsw = x_bsw + table[speaker_b][:, None]
        if self.kind == "conv":
            sizes = self.width, self.width, self.depth, self.reach, self.causal
            x_bsw = FrameTower(*sizes, name="conv")(x_bsw, mask_bs)
        for _ in range(self.depth if self.kind == "lstm" else 0):
            ways = 1 if self.causal else 2
            cells = [nn.OptimizedLSTMCell(self.width // ways) for _ in range(ways)]
            runs = [nn.RNN(cell) for cell in cells]
            layer = nn.Bidirectional(*runs) if ways == 2 else runs[0]
            x_bsw = layer(x_bsw, seq_lengths=mask_bs.sum(1))
        ends_t = (np.arange(self.steps) + 1 + self.lookahead) * x_bsp.shape[1]
        last_t = np.minimum(-(-ends_t // self.steps), x_bsp.shape[1]) - 1
        return Dense(self.out, name="proj")(LayerNorm(name="norm")(x_bsw[:, last_t]))
