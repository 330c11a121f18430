"""The multimodal transformer (Tsai et al. 2019, MulT). Legend: see the package.

Series need not have equal lengths, nor clocks.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import divide
from mmjax.nn.attention import CrossAttention
from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import Mlp


class CrossBlock(nn.Module):
    """One layer, equation 4: steps of a target ask those of a source.

    Called with the target as its own source, it is a self-attention layer. Rows whose
    source is absent get nothing from it.
    """

    heads: int

    @nn.compact
    def __call__(
        self, target_btw: jax.Array, source_blw: jax.Array, mask_bl: jax.Array
    ) -> jax.Array:
        b, t, w = target_btw.shape
        norm = LayerNorm(name="norm")
        asked_nw = norm(target_btw).reshape(b * t, w)
        attention = CrossAttention(self.heads, name="attn")
        answer_nw = attention(asked_nw, norm(source_blw), mask_bl)
        given_b11 = mask_bl.any(1)[:, None, None]
        x_btw = target_btw + jnp.where(given_b11, answer_nw.reshape(b, t, w), 0.0)
        mlp = Mlp(4 * w, "relu", name="mlp")
        return x_btw + mlp(LayerNorm(name="norm_mlp")(x_btw))


class Block(base.Base):
    """Every part asks every other, `layers` deep; then each looks at itself once.

    `width` columns a part; `heads` of each attention. Sources are the parts' own
    embeddings in every layer, as in the paper. Where one answer a row is wanted, it is
    of the mean over steps; the paper takes the last step, which padding hides.
    """

    TAKES: ClassVar[str] = "series"

    width: int = 16
    heads: int = 2
    layers: int = 1

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        divide.check("block.width", self.width, self.heads, "heads")
        names, embedded, fused = sorted(parts), {}, []
        for name in names:
            x_btw = Dense(self.width, use_bias=False, name=f"embed_{name}")(parts[name])
            x_btw += places(x_btw.shape[1], self.width)
            embedded[name] = x_btw * masks[name][..., None]
        for name in names:
            asked = []
            for other in (other for other in names if other != name):
                x_btw = embedded[name]
                for layer in range(self.layers):
                    block = CrossBlock(self.heads, name=f"{other}_to_{name}_{layer}")
                    x_btw = block(x_btw, embedded[other], masks[other])
                asked.append(x_btw)
            x_btw = jnp.concatenate(asked or [embedded[name]], -1)
            x_btw = CrossBlock(self.heads, name=f"self_{name}")(
                x_btw, x_btw, masks[name]
            )
            if not wanted.steps:
                x_btw = base.mean_step(x_btw, masks[name])
            fused.append(x_btw)
        return self.scored(LayerNorm(name="norm")(jnp.concatenate(fused, -1)), wanted)


def places(steps: int, width: int) -> jax.Array:
    """Sinusoids of a step's number, (t, w) (Vaswani et al. 2017, section 3.5)."""
    rate_w = 10_000.0 ** (-(jnp.arange(width) // 2 * 2) / width)
    angle_tw = jnp.arange(steps)[:, None] * rate_w
    return jnp.where(jnp.arange(width) % 2 == 0, jnp.sin(angle_tw), jnp.cos(angle_tw))
