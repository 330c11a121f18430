"""Regions of an image and fragments of a sentence in one space (Karpathy et al. 2014).

Legend: b rows, n regions, k fragments, f features, w word vector, d embedding.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models.text import embed
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal


class FragmentEncoders(nn.Module):
    """`v = W x + b` of a region, `s = relu(W [g_r e_1; e_2 g_r] + b_r)` of a fragment.

    The paper has a matrix of its own for every relation; here relation r has gains g_r
    on the two word vectors and a bias, for with some 50 relations of 30,000 captions
    matrices are most of the parameters. Words start as N(0, 1/w) and are trained.

    embed_dim: d. word_dim: w. words, relations: how many there are. unit: whether
    embeddings have length 1. dropout: of region features and words, in training.
    """

    embed_dim: int
    words: int
    relations: int
    word_dim: int = 200
    unit: bool = False
    dropout: float = 0.0

    def setup(self) -> None:
        width = self.word_dim
        self.word = self.param("word", normal(width**-0.5), (self.words, width))
        ones = nn.initializers.ones
        self.gain = self.param("gain", ones, (self.relations, 2 * width))
        shape = (self.relations, self.embed_dim)
        self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mix = Dense(self.embed_dim, use_bias=False)
        self.region = Dense(self.embed_dim)

    def _dropped(self, x: jax.Array, keys_b: jax.Array | None) -> jax.Array:
        if keys_b is None or not self.dropout:
            return x
        kept = jax.vmap(
            lambda k: jax.random.bernoulli(k, 1 - self.dropout, x.shape[1:])
        )
        return x * kept(keys_b) / (1 - self.dropout)

    def _scaled(self, x: jax.Array) -> jax.Array:
        square = jnp.square(x).sum(-1, keepdims=True)
        return x * jax.lax.rsqrt(square + 1e-8) if self.unit else x

    def regions(self, x_bnf: jax.Array, keys_b: jax.Array | None = None) -> jax.Array:
        """(b, n, d) of features."""
        return self._scaled(self.region(self._dropped(x_bnf, keys_b)))

    def fragments(
        self, triplets_bk3: jax.Array, keys_b: jax.Array | None = None
    ) -> jax.Array:
        """(b, k, d) of (relation, head, word)."""
        pair = embed(self.word, triplets_bk3[..., 1:])
        pair_bkw = pair.reshape(*pair.shape[:2], -1)
        relation_bk = triplets_bk3[..., 0]
        x_bkw = self._dropped(pair_bkw * embed(self.gain, relation_bk), keys_b)
        return self._scaled(nn.relu(self.mix(x_bkw) + embed(self.bias, relation_bk)))

    def __call__(self, x_bnf: jax.Array, triplets_bk3: jax.Array) -> tuple:
        return self.regions(x_bnf), self.fragments(triplets_bk3)
