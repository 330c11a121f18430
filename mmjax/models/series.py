"""From one series to another, step by step: convolutions, LSTMs or a transformer.

Legend: b rows, s steps of the source, t of the target, p columns, w width, d columns of
the target.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.frame_tower import FrameTower
from mmjax.nn import divide
from mmjax.nn.attention import attend
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import Mlp

KINDS = ("conv", "lstm", "transformer")


def lstm(width: int, *, both: bool = False, name: str | None = None) -> nn.Module:
    """An LSTM over the second axis, (b, s, p) to (b, s, width), by Flax's own cell.

    both: a second one runs backwards, and their states of a step stand side by side,
      each of half the width. It takes `seq_lengths`, (b,), from where it runs back.
    """
    cell = nn.OptimizedLSTMCell(width // 2 if both else width)
    if not both:
        return nn.RNN(cell, name=name)
    return nn.Bidirectional(nn.RNN(cell), nn.RNN(cell.copy()), name=name)


class Attention(nn.Module):
    """A pre-norm transformer block in which padding is never seen."""

    heads: int
    causal: bool

    @nn.compact
    def __call__(self, x_bsw: jax.Array, mask_bs: jax.Array) -> jax.Array:
        b, s, w = x_bsw.shape
        qkv = Dense(3 * w, name="qkv")(LayerNorm(name="norm_1")(x_bsw))
        qkv = qkv.reshape(b, s, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        seen_bss = jnp.broadcast_to(mask_bs[:, None], (b, s, s))
        if self.causal:
            seen_bss = seen_bss & jnp.tril(jnp.ones((s, s), bool))
        y = attend(*qkv, jnp.repeat(seen_bss, self.heads, 0))
        y_bsw = y.transpose(0, 2, 1, 3).reshape(b, s, w)
        x_bsw = x_bsw + Dense(w, name="out")(y_bsw)
        return x_bsw + Mlp(4 * w, name="mlp")(LayerNorm(name="norm_2")(x_bsw))


class Translator(nn.Module):
    """Steps of the target from steps of the source, of any two rates.

    Both series begin together, and step k of `steps` ends when the source's step
    ceil((k + 1) s / steps) does. A causal translator reads no later step, so that it
    can speak along; with `lookahead` it is that many steps of the target late.

    Fields:
      out: columns of the target, d.
      steps: of the target, t.
      kind: "conv", "lstm" or "transformer".
      reach: steps on either side that a convolution sees; twice as many before where
        it is causal.
      speakers: rows of a table that is added to every step, by the row's number; 0:
        there is none.
    """

    out: int
    steps: int
    kind: str = "conv"
    width: int = 64
    depth: int = 2
    reach: int = 4
    heads: int = 4
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
        x_bsw = self._along(x_bsw, mask_bs)
        count = x_bsp.shape[1]
        ends_t = -(-(np.arange(self.steps) + 1 + self.lookahead) * count // self.steps)
        last_t = np.minimum(ends_t, count) - 1
        return Dense(self.out, name="proj")(LayerNorm(name="norm")(x_bsw[:, last_t]))

    def _along(self, x_bsw: jax.Array, mask_bs: jax.Array) -> jax.Array:
        if self.kind == "conv":
            sizes = self.width, self.width, self.depth, self.reach, self.causal
            return FrameTower(*sizes, name="conv")(x_bsw, mask_bs)
        if self.kind == "lstm":
            lengths_b = mask_bs.sum(1)
            for number in range(self.depth):
                layer = lstm(self.width, both=not self.causal, name=f"lstm_{number}")
                x_bsw = layer(x_bsw, seq_lengths=lengths_b)
            return x_bsw
        divide.check("width", self.width, self.heads, "heads")
        shape = (x_bsw.shape[1], self.width)
        x_bsw = x_bsw + self.param("position_embedding", normal(0.02), shape)
        for number in range(self.depth):
            block = Attention(self.heads, self.causal, name=f"block_{number}")
            x_bsw = block(x_bsw, mask_bs)
        return x_bsw
