"""Pre-norm transformer, depth unrolled or scanned, with rematerialisation by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn import divide
from mmjax.nn.activation import activation
from mmjax.nn.attention import MAPS, SelfAttention, attend_one, pick
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal, uniform
from mmjax.nn.norm import LayerNorm

_POLICIES = jax.checkpoint_policies
# What the backward pass may keep of a block; everything else is computed again.
REMAT = {
    "none": None,
    "full": _POLICIES.nothing_saveable,
    "dots": _POLICIES.dots_saveable,
    "dots_no_batch": _POLICIES.dots_with_no_batch_dims_saveable,
}


def remat(module: type[nn.Module], policy: str, **kwargs: object) -> type[nn.Module]:
    """`module` recomputed in the backward pass, keeping what `policy` allows."""
    if policy not in REMAT:
        raise UserError(f"remat is {policy!r}{schema.suggest(policy, REMAT)}")
    if policy == "none":
        return module
    return nn.remat(module, policy=REMAT[policy], **kwargs)


class Mlp(nn.Module):
    """Two dense layers; with `init_depth` L, CLIP's N(0, 1/2w), N(0, 1/(2Lw))."""

    hidden: int
    act: str = "gelu"
    init_depth: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        fc_init = proj_init = None
        if self.init_depth:
            fc_init = normal((2 * width) ** -0.5)
            proj_init = normal((2 * self.init_depth * width) ** -0.5)
        x = Dense(self.hidden, True, fc_init, dtype=self.dtype, name="fc")(x)
        x = activation(self.act)(x)
        return Dense(width, True, proj_init, dtype=self.dtype, name="proj")(x)


class Block(nn.Module):
    """`x += attention(norm(x)); x += mlp(norm(x))` on flat (b*t, w), `t` tokens a row.

    Called with `token`, it returns that token of each row alone, (b, w), and computes
    no other: the last block of a pooled tower costs next to nothing.

    `init_depth` L > 0 is CLIP's text initialisation for L layers (attention std
    w^-1/2, output std (2Lw)^-1/2); 0 is torch's default (Xavier for the fused qkv).
    """

    heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    causal: bool = False
    init_depth: int = 0
    dtype: str = "float32"
    eps: float = 1e-5
    attention: str = "auto"

    @nn.compact
    def __call__(
        self, x_nw: jax.Array, t: int, token: int | jax.Array | None = None
    ) -> jax.Array:
        width = x_nw.shape[-1]

        def norm(x: jax.Array, name: str) -> jax.Array:
            return LayerNorm(self.eps, self.dtype, name=name)(x)

        qkv_init, out_init = uniform((1.5 / width) ** 0.5), None
        if self.init_depth:
            qkv_init = normal(width**-0.5)
            out_init = normal((2 * self.init_depth * width) ** -0.5)
        inits = qkv_init, out_init
        attention = SelfAttention(
            *(self.heads, self.causal, *inits, self.dtype),
            attention=self.attention,
            name="attn",
        )
        y = attention(norm(x_nw, "norm_1"), t, token)
        if token is not None:
            x_nw = pick(x_nw.reshape(-1, t, width), token)
        x = x_nw + y
        hidden = int(self.mlp_ratio * width)
        mlp = Mlp(hidden, self.act, self.init_depth, self.dtype, name="mlp")
        return x + mlp(norm(x, "norm_2"))


class Transformer(nn.Module):
    """`depth` blocks: all tokens (b, t, w), or with `token` that one alone, (b, w).

    Parameters are `block_0` ... unrolled; scanned, `blocks` stacks all but the last,
    which keeps its own name and is never rematerialised: its activations are the first
    that the backward pass needs.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    causal: bool = False
    init_depth: int = 0
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    eps: float = 1e-5
    attention: str = "auto"

    @nn.compact
    def __call__(
        self, x_btw: jax.Array, token: int | jax.Array | None = None
    ) -> jax.Array:
        t, width = x_btw.shape[1:]
        divide.check("width", width, self.heads, "heads")
        fields = (self.heads, self.mlp_ratio, self.act, self.causal, self.init_depth)
        fields += (self.dtype, self.eps, self.attention)
        inner = remat(Block, self.remat, prevent_cse=not self.scan, static_argnums=(2,))
        x_nw = x_btw.reshape(-1, width)
        if self.scan and self.depth > 1:
            blocks = nn.scan(
                lambda block, x, _: (block(x, t), None),
                variable_axes={"params": 0, MAPS: 0},
                split_rngs={"params": True},
                length=self.depth - 1,
            )
            x_nw, _ = blocks(inner(*fields, name="blocks"), x_nw, None)
        else:
            for i in range(self.depth - 1):
                x_nw = inner(*fields, name=f"block_{i}")(x_nw, t)
        x = Block(*fields, name=f"block_{self.depth - 1}")(x_nw, t, token)
        return x if token is not None else x.reshape(x_btw.shape)


class LatentPool(nn.Module):
    """A learned query asks all tokens, then an MLP: SigLIP's head, (b, w).

    `y = attention(probe, x); y + mlp(norm(y))` (Zhai et al. 2022, "MAP"; the query has
    no skip connection). The norm is LayerNorm of `eps`.
    """

    heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    dtype: str = "float32"
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x_btw: jax.Array) -> jax.Array:
        b, _, w = x_btw.shape
        init, zeros = uniform((1.5 / w) ** 0.5), nn.initializers.zeros
        probe_w = self.param("probe", normal(w**-0.5), (w,), jnp.float32)
        qkv = Dense(3 * w, True, init, zeros, self.dtype, name="qkv")
        kernel, bias = qkv.weights(w)
        query_w = probe_w.astype(self.dtype) @ kernel[:, :w] + bias[:w]
        query_bw = jnp.broadcast_to(query_w, (b, w))
        y = attend_one(query_bw, x_btw, (kernel[:, w:], bias[w:]), self.heads)
        y = Dense(w, True, None, zeros, self.dtype, name="out")(y)
        mlp = Mlp(int(self.mlp_ratio * w), self.act, 0, self.dtype, name="mlp")
        return y + mlp(LayerNorm(self.eps, self.dtype, name="norm")(y))
