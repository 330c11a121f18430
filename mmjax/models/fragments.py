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

    embed_dim: d. word_dim: w. words, relations: how many there are. unit: which
    embeddings have length 1, of "regions" and "fragments". dropout: of the numbers of
    region features and words, in training. fragment_dropout: of whole fragments, whose
    embeddings are then 0.
    """

    embed_dim: int
    words: int
    relations: int
    word_dim: int = 200
    unit: tuple[str, ...] = ()
    dropout: float = 0.0
    fragment_dropout: float = 0.0

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
        return x * _kept(keys_b, self.dropout, x.shape[1:]) / (1 - self.dropout)

    def _scaled(self, x: jax.Array, name: str) -> jax.Array:
        square = jnp.square(x).sum(-1, keepdims=True)
        return x * jax.lax.rsqrt(square + 1e-8) if name in self.unit else x

    def regions(self, x_bnf: jax.Array, keys_b: jax.Array | None = None) -> jax.Array:
        """(b, n, d) of features."""
        return self._scaled(self.region(self._dropped(x_bnf, keys_b)), "regions")

    def fragments(
        self, triplets_bk3: jax.Array, keys_b: jax.Array | None = None
    ) -> jax.Array:
        """(b, k, d) of (relation, head, word)."""
        pair = embed(self.word, triplets_bk3[..., 1:])
        pair_bkw = pair.reshape(*pair.shape[:2], -1)
        relation_bk = triplets_bk3[..., 0]
        x_bkw = self._dropped(pair_bkw * embed(self.gain, relation_bk), keys_b)
        x_bkd = nn.relu(self.mix(x_bkw) + embed(self.bias, relation_bk))
        if keys_b is not None and self.fragment_dropout:
            whole_b = jax.vmap(jax.random.fold_in, (0, None))(keys_b, 1)
            x_bkd *= _kept(whole_b, self.fragment_dropout, (x_bkd.shape[1], 1))
        return self._scaled(x_bkd, "fragments")

    def __call__(self, x_bnf: jax.Array, triplets_bk3: jax.Array) -> tuple:
        return self.regions(x_bnf), self.fragments(triplets_bk3)


def _kept(keys_b: jax.Array, share: float, shape: tuple[int, ...]) -> jax.Array:
    """Bool (b, *shape): False with probability `share`, by a key for each row."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, 1 - share, shape))(keys_b)
