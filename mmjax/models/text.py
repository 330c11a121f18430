"""Text towers: tokens int32 (b, l) and mask bool (b, l) to features (b, `features`)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.nn.attention import pick
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import Transformer


def embed(table_vw: jax.Array, tokens_bl: jax.Array) -> jax.Array:
    """Rows of the table, (b, l, w). Ids are trusted: the tokenizer bounds them."""
    return table_vw.at[tokens_bl].get(mode="promise_in_bounds")


class TextTransformer(nn.Module):
    """CLIP's causal text transformer, pooled at the end-of-text token.

    That token is the largest id, so it is found by argmax over ids; what follows it
    is padding, which causality hides. Sequences may be shorter than `context`.
    Initialised as the paper's code: token embedding N(0, .02^2), positions
    N(0, .01^2), blocks as in `nn.transformer.Block`. `heads` 0 means width / 64.

    SigLIP's tower differs by `causal` False, `pool` "last" (the token at the last
    position, padding or not: its sequences are always full), `project_bias` True (the
    projection into the joint space has a bias) and `eps` 1e-6.
    """

    width: int = 512
    depth: int = 12
    heads: int = 0
    vocab_size: int = 49408
    context: int = 77
    mlp_ratio: float = 4.0
    act: str = "gelu"
    causal: bool = True
    pool: str = "end"
    project_bias: bool = False
    eps: float = 1e-5
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "auto"

    @property
    def features(self) -> int:
        return self.width

    def setup(self) -> None:
        if self.pool not in ("end", "last"):
            raise UserError(f"pool is {self.pool!r}: use end or last")
        if not self.causal and self.pool == "end":
            raise UserError(
                "pool 'end' needs causal attention, which hides the padding after the "
                "end: use pool last, or causal True"
            )
        width = self.width
        self.token_embedding = self.param(
            "token_embedding", normal(0.02), (self.vocab_size, width), jnp.float32
        )
        self.position_embedding = self.param(
            "position_embedding", normal(0.01), (self.context, width), jnp.float32
        )
        self.transformer = Transformer(
            self.depth,
            self.heads or max(1, width // 64),
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            causal=self.causal,
            init_depth=self.depth,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            eps=self.eps,
            attention=self.attention,
        )
        self.norm_post = LayerNorm(self.eps, self.dtype)

    def _embed(self, tokens_bl: jax.Array) -> jax.Array:
        position_lw = self.position_embedding[: tokens_bl.shape[1]]
        x_blw = embed(self.token_embedding, tokens_bl) + position_lw
        return x_blw.astype(self.dtype)

    def __call__(
        self, tokens_bl: jax.Array, mask_bl: jax.Array | None = None
    ) -> jax.Array:
        """Features (b, width): the normalised end-of-text token, or the last one."""
        del mask_bl  # causality hides the padding; without it padding is read
        token = tokens_bl.shape[1] - 1
        if self.pool == "end":
            token = jnp.argmax(tokens_bl, axis=-1)
        return self.norm_post(self.transformer(self._embed(tokens_bl), token))

    def sequence(self, tokens_bl: jax.Array) -> jax.Array:
        """All output tokens, normalised, (b, l, width)."""
        return self.norm_post(self.transformer(self._embed(tokens_bl)))


class CBOW(nn.Module):
    """Bag of words: the mean embedding of the tokens where the mask is True."""

    width: int = 512
    vocab_size: int = 49408

    project_bias = False

    @property
    def features(self) -> int:
        return self.width

    @nn.compact
    def __call__(
        self, tokens_bl: jax.Array, mask_bl: jax.Array | None = None
    ) -> jax.Array:
        table_vw = self.param(
            "token_embedding", normal(0.02), (self.vocab_size, self.width)
        )
        x_blw = embed(table_vw, tokens_bl)
        if mask_bl is None:
            return x_blw.mean(1)
        weight_bl1 = mask_bl[..., None].astype(jnp.float32)
        return (x_blw * weight_bl1).sum(1) / jnp.maximum(weight_bl1.sum(1), 1.0)


class LSTM(nn.Module):
    """A text as the state of an LSTM after its last token."""

    width: int = 32
    vocab_size: int = 512

    project_bias = False

    @property
    def features(self) -> int:
        return self.width

    @nn.compact
    def __call__(
        self, tokens_bl: jax.Array, mask_bl: jax.Array | None = None
    ) -> jax.Array:
        """(b, width)."""
        shape = (self.vocab_size, self.width)
        table_vw = self.param("token_embedding", normal(0.02), shape)
        mask_bl = jnp.ones_like(tokens_bl, bool) if mask_bl is None else mask_bl
        y_blw = nn.RNN(nn.OptimizedLSTMCell(self.width))(embed(table_vw, tokens_bl))
        return pick(y_blw, jnp.maximum(mask_bl.sum(1) - 1, 0))
