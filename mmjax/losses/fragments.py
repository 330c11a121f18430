"""Objectives of deep fragment embeddings (Karpathy et al. 2014), and of later kin.

Every row sees all others, so under data parallelism the caller gathers the rows first.
All is float32.

Legend: b rows (images), m rows (sentences), n regions, k fragments of a sentence,
d embedding. A mask is True where there is a region or a fragment.
"""

import jax
import jax.numpy as jnp


def products(region_bnd: jax.Array, fragment_mkd: jax.Array) -> jax.Array:
    """(b, m, n, k): inner products of all regions with all fragments."""
    return jnp.einsum(
        "bnd,mkd->bmnk", region_bnd, fragment_mkd, precision=jax.lax.Precision.HIGHEST
    )


def scores(
    dots_bmnk: jax.Array,
    region_mask_bn: jax.Array,
    fragment_mask_mk: jax.Array,
    *,
    form: str = "sum",
    smooth: float = 5.0,
) -> jax.Array:
    """(b, m): how well an image and a sentence fit, by products of their parts.

    form: `sum`, the mean over regions and the sum over fragments of products above 0,
      over the number of fragments plus `smooth` (Karpathy et al. 2014, 3.3.2); `max`,
      where each fragment takes its best region alone (Karpathy and Fei-Fei 2015,
      equation 8).
    """
    regions_bmnk = region_mask_bn[:, None, :, None]
    if form == "max":
        best_bmk = jnp.where(regions_bmnk, dots_bmnk, -jnp.inf).max(2)
        part_bmk = jnp.where(region_mask_bn.any(1)[:, None, None], best_bmk, 0.0)
    else:
        count_b = jnp.maximum(region_mask_bn.sum(1), 1)[:, None, None]
        part_bmk = (jax.nn.relu(dots_bmnk) * regions_bmnk).sum(2) / count_b
    total_bm = (part_bmk * fragment_mask_mk).sum(2)
    return total_bm / (fragment_mask_mk.sum(1) + smooth)


def attended(
    region_bnd: jax.Array,
    fragment_mkd: jax.Array,
    region_mask_bn: jax.Array,
    fragment_mask_mk: jax.Array,
    *,
    sharpness: float,
) -> jax.Array:
    """(b, m): stacked cross attention from text to image (Lee et al. 2018, SCAN).

    Cosines above 0, at length 1 over the fragments, times `sharpness` are the logits of
    every fragment's attention over the regions; the score is the mean over fragments of
    the cosine of a fragment with what it attends to (equations 5 to 10, AVG).

    region_bnd, fragment_mkd: rows of length 1.
    """
    both_bmnk = region_mask_bn[:, None, :, None] & fragment_mask_mk[None, :, None]
    dots_bmnk = products(region_bnd, fragment_mkd)
    near_bmnk = jax.nn.relu(jnp.where(both_bmnk, dots_bmnk, 0.0))
    length_bmn1 = jnp.sqrt(jnp.square(near_bmnk).sum(3, keepdims=True) + 1e-8)
    logits_bmnk = jnp.where(both_bmnk, sharpness * near_bmnk / length_bmn1, -1e9)
    share_bmnk = jax.nn.softmax(logits_bmnk, axis=2)
    # the cosine with the attended sum, without the sum itself of (b, m, k, d)
    hit_bmk = (share_bmnk * dots_bmnk).sum(2)
    gram_bnn = jnp.einsum("bnd,bpd->bnp", region_bnd, region_bnd)
    square_bmk = jnp.einsum("bmnk,bnp,bmpk->bmk", share_bmnk, gram_bnn, share_bmnk)
    cosine_bmk = hit_bmk * jax.lax.rsqrt(jnp.maximum(square_bmk, 1e-8))
    count_m = jnp.maximum(fragment_mask_mk.sum(1), 1)
    return (cosine_bmk * fragment_mask_mk).sum(2) / count_m


def matched(
    region_bnd: jax.Array,
    fragment_mkd: jax.Array,
    region_mask_bn: jax.Array,
    fragment_mask_mk: jax.Array,
) -> jax.Array:
    """(b, m): products of all fragments with their best regions, as one cosine.

    Their sum, over the length of the sum of the sentence's fragments. With one region
    it is the cosine between an image and a sentence whose embedding is that sum; more
    regions let each fragment choose its own.

    region_bnd: rows of length 1.
    """
    masked_mkd = jnp.where(fragment_mask_mk[..., None], fragment_mkd, 0.0)
    square_m = jnp.square(masked_mkd.sum(1)).sum(-1)
    dots_bmnk = products(region_bnd, masked_mkd)
    regions_bmnk = region_mask_bn[:, None, :, None]
    best_bmk = jnp.where(regions_bmnk, dots_bmnk, -jnp.inf).max(2)
    best_bmk = jnp.where(region_mask_bn.any(1)[:, None, None], best_bmk, 0.0)
    return best_bmk.sum(2) * jax.lax.rsqrt(jnp.maximum(square_m, 1e-8))


def contrastive(scores_bb: jax.Array, scale: float) -> jax.Array:
    """CLIP's loss of given scores: the mean cross-entropy of both ways, in nats."""
    logits_bb = scale * scores_bb
    return -0.5 * sum(
        jnp.diagonal(jax.nn.log_softmax(logits_bb, axis)).mean() for axis in (0, 1)
    )


def ranking(scores_bb: jax.Array, margin: float, *, hardest: bool = False) -> jax.Array:
    """The global ranking objective: hinges on both ways, the mean over rows.

    `sum_l max(0, S_kl - S_kk + margin) + sum_l max(0, S_lk - S_kk + margin)` (Karpathy
    et al. 2014, equation 9). hardest: the largest hinge in place of the sum (Faghri et
    al. 2018), as SCAN is trained.
    """
    right_b = jnp.diagonal(scores_bb)
    other_bb = 1.0 - jnp.eye(len(scores_bb))
    rows_bb = jax.nn.relu(scores_bb - right_b[:, None] + margin) * other_bb
    columns_bb = jax.nn.relu(scores_bb - right_b[None] + margin) * other_bb
    if hardest:
        return (rows_bb.max(1) + columns_bb.max(0)).mean()
    return (rows_bb.sum(1) + columns_bb.sum(0)).mean()


def alignment(
    dots_bbnk: jax.Array,
    region_mask_bn: jax.Array,
    fragment_mask_bk: jax.Array,
    *,
    multiple_instance: bool = True,
) -> jax.Array:
    """The fragment alignment objective, the mean over rows of hinges max(0, 1 - y dot).

    y is 1 of a region and a fragment of one pair and -1 of others. multiple_instance:
    in a pair y is the sign of the product, and 1 for each fragment's best region
    (Karpathy et al. 2014, equations 5 to 7). A fragment's hinges of either sign weigh 1
    together, as in the authors' code.
    """
    both_bbnk = region_mask_bn[:, None, :, None] & fragment_mask_bk[None, :, None]
    own_bbnk = jnp.eye(len(dots_bbnk), dtype=bool)[:, :, None, None] & both_bbnk
    positive_bbnk = own_bbnk
    if multiple_instance:
        held_bbnk = jnp.where(own_bbnk, jax.lax.stop_gradient(dots_bbnk), -jnp.inf)
        best_bbnk = held_bbnk >= held_bbnk.max(2, keepdims=True)
        positive_bbnk = own_bbnk & ((held_bbnk > 0) | best_bbnk)
    negative_bbnk = both_bbnk & ~positive_bbnk
    total = 0.0
    for sign, chosen_bbnk in ((1.0, positive_bbnk), (-1.0, negative_bbnk)):
        hinge_bbnk = jax.nn.relu(1.0 - sign * dots_bbnk) * chosen_bbnk
        count_bk = jnp.maximum(chosen_bbnk.sum((0, 2)), 1)
        total += (hinge_bbnk.sum((0, 2)) / count_bk).sum(1).mean()
    return total


def supervised(
    dots_bnk: jax.Array, region_mask_bn: jax.Array, gold_bk: jax.Array
) -> jax.Array:
    """Cross-entropy in nats of each fragment's attention with its gold region.

    The mean over rows of means over the fragments that have one.

    dots_bnk: logits of a pair. gold_bk: the region, or -1.
    """
    logits_bnk = jnp.where(region_mask_bn[..., None], dots_bnk, -1e9)
    log_bnk = jax.nn.log_softmax(logits_bnk, axis=1)
    picked_bk = jnp.take_along_axis(log_bnk, jnp.maximum(gold_bk, 0)[:, None], 1)[:, 0]
    known_bk = gold_bk >= 0
    count_b = jnp.maximum(known_bk.sum(1), 1)
    return (-jnp.where(known_bk, picked_bk, 0.0).sum(1) / count_b).mean()
