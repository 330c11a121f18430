"""LSTMs that say what an image shows.

Show and Tell (Vinyals et al. 2015) is given the pooled image once, before the first
word. Show, Attend and Tell (Xu et al. 2015) looks at the cells of the image before
every word: at their weighted mean (soft attention) or at one of them (hard attention).

Legend: b rows, m words, n cells, d columns of a cell, e embedding, w width of the LSTM,
v ids. While decoding: p images, k rows of each, b = p*k.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models.text import embed
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal, uniform
from mmjax.nn.keep import keep
from mmjax.nn.norm import LayerNorm

ATTENTION = ("none", "soft", "hard")


class Look(NamedTuple):
    """Where a word's glimpse fell; of hard attention also what its gradient needs."""

    weight: jax.Array  # (b, n), adds up to 1
    log_place: jax.Array  # (b,) log-probability of the cell that was drawn, if one was
    entropy: jax.Array  # (b,) nats of the distribution over cells


class _Weights(NamedTuple):
    """(kernel, bias or None) of the maps inside a step."""

    recur: tuple
    query: tuple = ()
    score: tuple = ()
    gate: tuple = ()
    glimpse: tuple = ()


class Recurrent(nn.Module):
    """An LSTM decoder. Logits of a word are of the state, and the glimpse and the word
    before it where there is attention (Xu et al. 2015, equation 7, with their code's
    tanh).

    word_width: columns of a word's vector; 0 is `width`.
    attention: none, soft or hard. Cells are mapped to `width` columns first, which the
      paper does not do, so that a step costs the same for any network of images.
    dropout: share of a word's embedding, and of what the last layer reads, that is 0.
    """

    vocab_size: int
    width: int = 512
    word_width: int = 0
    attention: str = "none"
    dropout: float = 0.0

    @property
    def attends(self) -> bool:
        """Whether a step says where it looked."""
        return self.attention != "none"

    def setup(self) -> None:
        if self.attention not in ATTENTION:
            raise UserError(
                f"attention is {self.attention!r}: use {' or '.join(ATTENTION)}"
            )
        w, e, shape = self.width, self.word_width or self.width, (self.vocab_size,)
        self.token_embedding = self.param(
            "token_embedding", uniform(0.1), (*shape, e), jnp.float32
        )
        self.norm = LayerNorm()
        self.word = Dense(4 * w)
        self.recur = Dense(4 * w, use_bias=False)
        self.head = Dense(self.vocab_size, kernel_init=normal(0.02))
        if not self.attends:
            self.image = Dense(e)
            return
        self.cells, self.start = Dense(w), Dense(2 * w)
        self.cell_key, self.query, self.score = Dense(w), Dense(w, False), Dense(1)
        self.gate, self.glimpse = Dense(1), Dense(4 * w, use_bias=False)
        self.from_state, self.from_glimpse = Dense(e), Dense(e, use_bias=False)

    def _weights(self) -> _Weights:
        """Arrays of the maps that a step reads: no layer can be called in a scan."""
        names = _Weights._fields if self.attends else ("recur",)
        return _Weights(
            **{name: getattr(self, name).weights(self.width) for name in names}
        )

    def begin(self, cells_pnd: jax.Array, rows: int = 1) -> tuple[Any, Any]:
        """(what steps read of the images, the state of `rows` rows of each)."""
        cells_pnd = self.norm(cells_pnd)
        mean_pd = cells_pnd.mean(1)
        if not self.attends:
            zero_pw = jnp.zeros((len(mean_pd), self.width))
            x_p4w, memory = self.word(self.image(mean_pd)), ()
            state = _advance(self._weights(), x_p4w, (zero_pw, zero_pw))
        else:
            cells_pnw = self.cells(cells_pnd)
            memory = cells_pnw, self.cell_key(cells_pnw)
            state = tuple(jnp.split(jnp.tanh(self.start(mean_pd)), 2, axis=-1))
        return memory, jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), state)

    def step(
        self, memory: Any, state: Any, ids_b: jax.Array, index: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array | None]:
        """Logits (b, v) of the next word, the state, and where it looked (b, n)."""
        del index  # the state says how far it is
        word_be = embed(self.token_embedding, ids_b[:, None])[:, 0]
        state, z_bw, look = self._word(
            self._weights(), memory, state, self.word(word_be)
        )
        return self._logits(word_be, state[0], z_bw), state, look and look.weight

    def __call__(
        self, cells_bnd: jax.Array, ids_bm: jax.Array, keys_b: jax.Array | None = None
    ) -> tuple[jax.Array, Look | None]:
        """Logits (b, m, v) of the word after each, and looks (b, m, ...).

        keys_b: in training, one key a row: for dropout and the cells that are drawn.
        """
        memory, state = self.begin(cells_bnd)
        weights = self._weights()
        words_bme = embed(self.token_embedding, ids_bm)
        words_bme = keep(words_bme, self.dropout, keys_b, salt=0)
        noise_mbn = mean_b = None
        if keys_b is not None and self.attention == "hard":
            noise_mbn, mean_b = _noise(keys_b, ids_bm.shape[1], cells_bnd.shape[1])
        # The maps of words are products of all steps at once.
        inputs_mb4w = jnp.swapaxes(self.word(words_bme), 0, 1)

        def body(state: Any, at: tuple) -> tuple[Any, tuple]:
            state, z_bw, look = self._word(weights, memory, state, *at, mean_b)
            return state, (state[0], z_bw, look)

        _, outputs = jax.lax.scan(body, state, (inputs_mb4w, noise_mbn))
        h, z, look = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
        return self._logits(words_bme, h, z, keys_b), look

    def _word(
        self,
        weights: _Weights,
        memory: Any,
        state: Any,
        x_b4w: jax.Array,
        noise_bn: jax.Array | None = None,
        mean_b: jax.Array | None = None,
    ) -> tuple[Any, jax.Array | None, Look | None]:
        """The state after a word, and the glimpse and the look before it."""
        if not self.attends:
            return _advance(weights, x_b4w, state), None, None
        cells_pnw, keys_pnw = memory
        h_bw = state[0]
        query_pkw = _affine(weights.query, h_bw).reshape(len(cells_pnw), -1, self.width)
        mixed_pknw = jnp.tanh(keys_pnw[:, None] + query_pkw[:, :, None])
        score_pkn = _affine(weights.score, mixed_pknw)[..., 0]
        log_bn = jax.nn.log_softmax(score_pkn.reshape(len(h_bw), -1))
        prob_bn = jnp.exp(log_bn)
        # drawn by Gumbel's noise in training, otherwise the most probable cell
        place_b = (log_bn if noise_bn is None else log_bn + noise_bn).argmax(-1)
        weight_bn = prob_bn
        if self.attention == "hard":
            weight_bn = jax.nn.one_hot(place_b, log_bn.shape[-1])
            if mean_b is not None:
                weight_bn = jnp.where(mean_b[:, None], prob_bn, weight_bn)
        weight_pkn = weight_bn.reshape(score_pkn.shape)
        z_bw = jnp.einsum("pkn,pnw->pkw", weight_pkn, cells_pnw).reshape(h_bw.shape)
        z_bw *= jax.nn.sigmoid(_affine(weights.gate, h_bw))  # section 4.2.1
        log_place_b = jnp.take_along_axis(log_bn, place_b[:, None], axis=1)[:, 0]
        if mean_b is not None:
            log_place_b = jnp.where(mean_b, 0.0, log_place_b)
        look = Look(weight_bn, log_place_b, -(prob_bn * log_bn).sum(-1))
        x_b4w = x_b4w + _affine(weights.glimpse, z_bw)
        return _advance(weights, x_b4w, state), z_bw, look

    def _logits(
        self,
        words: jax.Array,
        h: jax.Array,
        z: jax.Array | None,
        keys_b: jax.Array | None = None,
    ) -> jax.Array:
        """(..., v) float32."""
        if self.attends:
            h = jnp.tanh(words + self.from_state(h) + self.from_glimpse(z))
        return self.head(keep(h, self.dropout, keys_b, salt=1))


def _affine(pair: tuple, x: jax.Array) -> jax.Array:
    kernel, bias = pair
    return x @ kernel if bias is None else x @ kernel + bias


def _advance(
    weights: _Weights, x_b4w: jax.Array, state: tuple
) -> tuple[jax.Array, jax.Array]:
    """The LSTM: (h, c) after an input that is mapped to its four gates already."""
    h_bw, c_bw = state
    i, f, o, g = jnp.split(x_b4w + _affine(weights.recur, h_bw), 4, axis=-1)
    # open at first, so that gradients reach the first words
    c_bw = jax.nn.sigmoid(f + 1.0) * c_bw + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c_bw), c_bw


def _noise(keys_b: jax.Array, m: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Gumbel noise (m, b, n), and which rows take the mean of the cells (b,)."""
    fold = jax.vmap(jax.random.fold_in, (0, None))
    gumbel_bmn = jax.vmap(lambda key: jax.random.gumbel(key, (m, n)))(fold(keys_b, 2))
    return jnp.swapaxes(gumbel_bmn, 0, 1), jax.vmap(jax.random.bernoulli)(
        fold(keys_b, 3)
    )
