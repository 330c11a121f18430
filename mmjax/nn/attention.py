"""Multi-head attention with 2-D kernels.

Legend: b rows, t key tokens, q query tokens, n = b*t, w width, h heads, d width of a
head. Layers take and return flat (n, w): with rows and tokens apart, XLA's CPU
back-end hides the residual stream's users behind bitcasts, and then computes the whole
sum over deeper layers again for every user (a quarter of a text tower's step).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn import attention_kernels
from mmjax.nn.dense import Dense
from mmjax.nn.init import Initializer, normal

MAPS = "attention_maps"  # a collection; where it is mutable, layers keep their weights

# An einsum summed and kept in float32, whatever the dtype of its factors.
dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def softmax(logits: jax.Array, mask: jax.Array | None, dtype: str) -> jax.Array:
    """Softmax over the last axis in float32, where `mask` holds; then `dtype`."""
    logits = logits.astype(jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


def attend(
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    mask_qt: jax.Array | None = None,
    *,
    causal: bool = False,
    mask_bt: jax.Array | None = None,
    attention: str = "auto",
) -> jax.Array:
    """Scaled dot-product attention, (b, h, q, d). Reverse mode only.

    Args:
      mask_qt: True where visible, for all rows.
      causal: in place of a mask: query i sees keys 0 to i.
      mask_bt: in place of a mask: the keys of a row that are visible.
      attention: the kernel, see `mmjax.nn.attention_kernels`.
    """
    (b, h, q, d), t = q_bhqd.shape, k_bhtd.shape[2]
    kernel = attention_kernels.choose(attention, q_bhqd, t)
    if kernel in attention_kernels.PLATFORM:
        masks = {"causal": causal, "mask_qt": mask_qt, "mask_bt": mask_bt}
        return attention_kernels.fused(kernel, q_bhqd, k_bhtd, v_bhtd, **masks)
    mask = jnp.tril(jnp.ones((q, t), bool)) if causal else mask_qt
    if mask_bt is not None:  # of every head's matrix
        mask = jnp.repeat(mask_bt, h, axis=0)[:, None]
    # One batch axis of b*h matrices: XLA's CPU back-end has no fast path for two.
    q_nqd, k_ntd, v_ntd = (x.reshape(b * h, -1, d) for x in (q_bhqd, k_bhtd, v_bhtd))
    run = _attend if kernel == "reference" else _attend_tiled
    with jax.named_scope(kernel):
        y_nqd = run(q_nqd * d**-0.5, k_ntd, v_ntd, mask)
    return y_nqd.reshape(b, h, q, d)


def _attend_tiled(
    q_nqd: jax.Array, k_ntd: jax.Array, v_ntd: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """`_attend` of one tile of queries after the other, again for the gradient."""
    n, q, d = q_nqd.shape
    size = -(-q // -(-q // attention_kernels.BLOCK))  # as equal as can be
    more = -q % size
    q_nqd = jnp.pad(q_nqd, ((0, 0), (0, more), (0, 0)))
    tiles_cnqd = jnp.swapaxes(q_nqd.reshape(n, -1, size, d), 0, 1)
    of_tile = mask is not None and mask.ndim == 2  # else it is every query's
    masks = None
    if of_tile:
        masks = jnp.pad(mask, ((0, more), (0, 0))).reshape(len(tiles_cnqd), size, -1)

    @jax.checkpoint
    def one(tile: tuple) -> jax.Array:
        tile_nqd, mask_qt = tile
        return _attend(tile_nqd, k_ntd, v_ntd, mask_qt if of_tile else mask)

    y_cnqd = jax.lax.map(one, (tiles_cnqd, masks))
    return jnp.swapaxes(y_cnqd, 0, 1).reshape(n, -1, d)[:, :q]


@jax.custom_vjp
def _attend(
    q_nqd: jax.Array, k_ntd: jax.Array, v_ntd: jax.Array, mask_qt: jax.Array | None
) -> jax.Array:
    """`softmax(q k') v` with a gradient of fewer passes over (q, t) than autodiff's."""
    return _forward(q_nqd, k_ntd, v_ntd, mask_qt)[0]


def _forward(
    q_nqd: jax.Array, k_ntd: jax.Array, v_ntd: jax.Array, mask_qt: jax.Array | None
) -> tuple[jax.Array, tuple]:
    logits_nqt = dot("nqd,ntd->nqt", q_nqd, k_ntd)
    probs_nqt = softmax(logits_nqt, mask_qt, str(q_nqd.dtype))
    y_nqd = jnp.einsum("nqt,ntd->nqd", probs_nqt, v_ntd)
    return y_nqd, (q_nqd, k_ntd, v_ntd, mask_qt, probs_nqt, y_nqd)


def _backward(saved: tuple, grad_nqd: jax.Array) -> tuple:
    q_nqd, k_ntd, v_ntd, mask_qt, probs_nqt, y_nqd = saved
    dtype = q_nqd.dtype
    # The mean over keys of the gradient by the probabilities, from narrower arrays.
    mean_nq1 = (grad_nqd * y_nqd).astype(jnp.float32).sum(-1, keepdims=True)
    by_logits_nqt = probs_nqt * (dot("nqd,ntd->nqt", grad_nqd, v_ntd) - mean_nq1)
    if mask_qt is not None:  # where a query sees no key at all, it is 0 too
        by_logits_nqt = jnp.where(mask_qt, by_logits_nqt, 0.0)
    by_logits_nqt = by_logits_nqt.astype(dtype)
    by_q_nqd = dot("nqt,ntd->nqd", by_logits_nqt, k_ntd)
    by_k_ntd = over_queries(by_logits_nqt, q_nqd)
    by_v_ntd = over_queries(probs_nqt, grad_nqd)
    return by_q_nqd.astype(dtype), by_k_ntd.astype(dtype), by_v_ntd.astype(dtype), None


_attend.defvjp(_forward, _backward)


def over_queries(x_nqt: jax.Array, y_nqd: jax.Array) -> jax.Array:
    """`x' y`, float32 (n, t, d)."""
    if x_nqt.shape[-1] <= y_nqd.shape[-1]:
        return dot("nqt,nqd->ntd", x_nqt, y_nqd)
    # XLA's CPU back-end turns the first factor around in memory, so the narrower one
    # goes first; the barrier keeps it there. One fifth of the time at t = 128 d.
    turned_ndt = jax.lax.optimization_barrier(dot("nqd,nqt->ndt", y_nqd, x_nqt))
    return jnp.swapaxes(turned_ndt, 1, 2)


def attend_one(
    q_bw: jax.Array,
    x_btw: jax.Array,
    kv: tuple[jax.Array, jax.Array],
    heads: int,
    mask_bt: jax.Array | None = None,
) -> jax.Array:
    """One query a row over keys and values that are never formed, (b, w).

    With K = X Wk + bk and V = X Wv + bv, head by head, q K' = (q Wk') X' + const and
    a V = (a X) Wv + bv: the same numbers in w^2 + 2htw products instead of 2tw^2. The
    constant cancels in the softmax, so the key bias has no effect (nor has it in the
    direct form).

    Args:
      q_bw: queries.
      x_btw: tokens attended to.
      kv: kernel (w, 2w) and bias (2w,) making keys and values from tokens.
      heads: number of heads.
      mask_bt: True where visible.
    """
    width = q_bw.shape[-1]
    kernel, bias = kv
    k_whd, v_whd = jnp.moveaxis(kernel.reshape(width, 2, heads, -1), 1, 0)
    q_bhd = q_bw.reshape(-1, heads, width // heads)
    q_bhw = jnp.einsum("bhd,whd->bhw", q_bhd * q_bhd.shape[-1] ** -0.5, k_whd)
    logits_bht = dot("bhw,btw->bht", q_bhw, x_btw)
    mask = None if mask_bt is None else mask_bt[:, None]
    probs_bht = softmax(logits_bht, mask, str(q_bw.dtype))
    mixed_bhw = jnp.einsum("bht,btw->bhw", probs_bht, x_btw)
    out_bhd = jnp.einsum("bhw,whd->bhd", mixed_bhw, v_whd)
    return out_bhd.reshape(q_bw.shape) + bias[width:]


def pick(x_btw: jax.Array, token: int | jax.Array) -> jax.Array:
    """Token number `token` of every row, (b, w): one number, or one a row (b,)."""
    if isinstance(token, int):
        return x_btw[:, token]
    return jnp.take_along_axis(x_btw, token[:, None, None], axis=1)[:, 0]


def keeps_maps(layer: nn.Module) -> bool:
    """Whether a call of the layer has to keep its weights by `keep_map`."""
    return layer.is_mutable_collection(MAPS) and not layer.is_initializing()


def keep_map(
    layer: nn.Module, q_bhqd: jax.Array, k_bhtd: jax.Array, mask: jax.Array | None
) -> None:
    """Puts the attention weights (b, h, q, t), float32, into the collection MAPS."""
    logits_bhqt = dot("bhqd,bhtd->bhqt", q_bhqd * q_bhqd.shape[-1] ** -0.5, k_bhtd)
    layer.put_variable(MAPS, "weights", softmax(logits_bhqt, mask, "float32"))


class SelfAttention(nn.Module):
    """Self-attention with one fused (w, 3w) kernel for queries, keys and values.

    Takes (n, w) of `t` tokens a row. Called with `token`, only that token of each row
    asks, and (b, w) comes back: the same values as picking it from the full output, at
    a fraction of the cost. `qkv_bias` False leaves out the biases of the three.
    `attention` names the kernel, see `mmjax.nn.attention_kernels`. Weights are kept
    where the collection MAPS is mutable.
    """

    heads: int
    causal: bool = False
    qkv_init: Initializer | None = None
    out_init: Initializer | None = None
    dtype: str = "float32"
    qkv_bias: bool = True
    attention: str = "auto"

    @nn.compact
    def __call__(
        self, x_nw: jax.Array, t: int, token: int | jax.Array | None = None
    ) -> jax.Array:
        n, w = x_nw.shape
        b = n // t
        zeros = nn.initializers.zeros
        qkv = Dense(3 * w, self.qkv_bias, self.qkv_init, zeros, self.dtype, name="qkv")
        out = Dense(w, True, self.out_init, zeros, self.dtype, name="out")
        keeps = keeps_maps(self)
        if token is not None and not keeps:
            kernel, bias = qkv.weights(w)
            bias = jnp.zeros(3 * w, self.dtype) if bias is None else bias
            x_btw = x_nw.reshape(b, t, w)
            q_bw = pick(x_btw, token) @ kernel[:, :w] + bias[:w]
            mask_bt = None
            if self.causal:
                mask_bt = jnp.arange(t) <= jnp.broadcast_to(token, (b,))[:, None]
            kv = kernel[:, w:], bias[w:]
            return out(attend_one(q_bw, x_btw, kv, self.heads, mask_bt))
        qkv_bt3hd = qkv(x_nw).reshape(b, t, 3, self.heads, w // self.heads)
        q, k, v = qkv_bt3hd.transpose(2, 0, 3, 1, 4)
        if keeps:
            keep_map(
                self, q, k, jnp.tril(jnp.ones((t, t), bool)) if self.causal else None
            )
        y_bhtd = attend(q, k, v, causal=self.causal, attention=self.attention)
        y_btw = y_bhtd.transpose(0, 2, 1, 3).reshape(b, t, w)
        return out(y_btw.reshape(n, w) if token is None else pick(y_btw, token))


class CrossAttention(nn.Module):
    """Tokens ask and those of a context answer.

    Takes flat (n, w) and a context (b, l, c) of any width; `mask_bl` is True where the
    context may be seen, and None is everywhere. `use_bias` is of all maps but the last,
    which has one.
    """

    heads: int
    use_bias: bool = True
    out_init: Initializer | None = None
    dtype: str = "float32"
    attention: str = "auto"

    @nn.compact
    def __call__(
        self,
        x_nw: jax.Array,
        context_blc: jax.Array,
        mask_bl: jax.Array | None = None,
    ) -> jax.Array:
        (n, w), b = x_nw.shape, len(context_blc)

        def heads(x: jax.Array, parts: int, name: str) -> jax.Array:
            dense = Dense(parts * w, self.use_bias, dtype=self.dtype, name=name)
            x = dense(x).reshape(b, -1, parts, self.heads, w // self.heads)
            return x.transpose(2, 0, 3, 1, 4)

        (q,), (k, v) = heads(x_nw, 1, "q"), heads(context_blc, 2, "kv")
        y_bhtd = attend(q, k, v, mask_bt=mask_bl, attention=self.attention)
        y_nw = y_bhtd.transpose(0, 2, 1, 3).reshape(n, w)
        zeros = nn.initializers.zeros
        return Dense(w, True, self.out_init, zeros, self.dtype, name="out")(y_nw)


class AttentionPool(nn.Module):
    """CLIP's attention pooling: the mean token asks, all tokens and it answer, (b, w).

    Learned positions for mean + tokens; all kernels N(0, 1/w). The output projection
    of the original (`c_proj`) is left to the caller.
    """

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_btw: jax.Array) -> jax.Array:
        t, w = x_btw.shape[1:]
        init = normal(w**-0.5)
        position_tw = self.param("position_embedding", init, (t + 1, w), jnp.float32)
        x_btw = jnp.concatenate([x_btw.mean(1, keepdims=True), x_btw], axis=1)
        x_btw = (x_btw + position_tw).astype(self.dtype)
        q_bw = Dense(w, True, init, dtype=self.dtype, name="query")(x_btw[:, 0])
        kv = Dense(2 * w, True, init, dtype=self.dtype, name="key_value").weights(w)
        return attend_one(q_bw, x_btw, kv, self.heads)
