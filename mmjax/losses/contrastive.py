"""Contrastive losses over a batch of image-text pairs.

Legend: b pairs, d embedding width. Row i of both inputs belongs together. Every row
sees all others, so under data parallelism the caller gathers the rows first. These
hold (b, b) arrays; `contrastive_tiles` has the same losses without.
"""

import jax
import jax.numpy as jnp


def l2_normalize(x: jax.Array) -> jax.Array:
    """Rows of unit length, float32; a zero row stays zero, with zero gradient."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    some = square > 0
    return x * jnp.where(some, jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def similarity(image_bd: jax.Array, text_bd: jax.Array) -> jax.Array:
    """Inner products of all pairs, (b, b), images down, in full float32."""
    return jnp.matmul(
        image_bd.astype(jnp.float32),
        text_bd.astype(jnp.float32).T,
        precision=jax.lax.Precision.HIGHEST,
    )


def row_ids(keys_bl: jax.Array) -> jax.Array:
    """int32 (b,): equal for equal rows of the integers `keys_bl`, and for them alone.

    By sorting, a column of the keys at a time: b log b a column, where comparing all
    pairs of rows would take b^2.
    """
    place_b = jnp.arange(len(keys_bl), dtype=jnp.int32)

    def split_classes(id_b: jax.Array, key_b: jax.Array) -> tuple[jax.Array, None]:
        id_b, key_b, row_b = jax.lax.sort((id_b, key_b, place_b), num_keys=2)
        new_b = (id_b != jnp.roll(id_b, 1)) | (key_b != jnp.roll(key_b, 1))
        rank_b = jnp.cumsum(new_b.at[0].set(False), dtype=jnp.int32)
        return jnp.zeros_like(rank_b).at[row_b].set(rank_b), None

    return jax.lax.scan(split_classes, jnp.zeros_like(place_b), keys_bl.T)[0]


def _cross_entropy(logits_bb: jax.Array, positives_bb: jax.Array | None) -> jax.Array:
    """Mean over rows of the cross-entropy with targets uniform over the positives."""
    logp_bb = jax.nn.log_softmax(logits_bb, axis=-1)
    if positives_bb is None:
        return -jnp.mean(jnp.diagonal(logp_bb))
    weight_bb = positives_bb.astype(jnp.float32)
    hit_b = jnp.sum(weight_bb * logp_bb, axis=-1) / jnp.sum(weight_bb, axis=-1)
    return -jnp.mean(hit_b)


def _with_diagonal(positives_bb: jax.Array | None) -> jax.Array | None:
    if positives_bb is None:
        return None
    return positives_bb.astype(bool) | jnp.eye(positives_bb.shape[0], dtype=bool)


def info_nce(
    image_bd: jax.Array,
    text_bd: jax.Array,
    scale: jax.Array | float,
    *,
    positives: jax.Array | None = None,
) -> jax.Array:
    """Symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3), a scalar.

    Args:
      image_bd: image embeddings with rows of unit length.
      text_bd: text embeddings with rows of unit length.
      scale: `exp(t)`, the inverse temperature.
      positives: optional bool (b, b), [image, text]: pairs that count as matching
        besides the diagonal, e.g. equal captions. Targets are then uniform over the
        positives of each row and each column.
    """
    logits_bb = scale * similarity(image_bd, text_bd)
    positives = _with_diagonal(positives)
    rows = _cross_entropy(logits_bb, positives)
    columns = _cross_entropy(logits_bb.T, None if positives is None else positives.T)
    return (rows + columns) / 2


def sigmoid(
    image_bd: jax.Array,
    text_bd: jax.Array,
    scale: jax.Array | float,
    bias: jax.Array | float,
    *,
    positives: jax.Array | None = None,
) -> jax.Array:
    """Pairwise sigmoid loss of SigLIP (Zhai et al. 2023), a scalar.

    `-mean_i sum_j log sigmoid(z_ij (scale x_i.y_j + bias))`, z_ij = 1 on matching
    pairs and -1 elsewhere. Arguments as in `info_nce`.
    """
    logits_bb = scale * similarity(image_bd, text_bd) + bias
    positives = _with_diagonal(positives)
    if positives is None:
        positives = jnp.eye(logits_bb.shape[0], dtype=bool)
    signed_bb = jnp.where(positives, logits_bb, -logits_bb)
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(signed_bb), axis=-1))
