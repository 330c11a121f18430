"""Vector quantisation: nearest codes, and a codebook that follows its data.

The codebook of VQ-VAE (van den Oord et al. 2017), learned by moving averages (its
appendix A.1), made by k-means from the first batch, its dead codes moved to where the
error is.

Legend: b images, n positions of an image, m = b*n vectors, d width of a code, k codes,
c candidates. A `count` is the uses of a code per image, so that counts add up to n and
the mean of the counts of equal shards is the count of the whole batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


class Codebook(NamedTuple):
    """A codebook kept by moving averages; all float32."""

    codes: jax.Array  # (k, d)
    count: jax.Array  # (k,) averaged uses per image
    sum: jax.Array  # (k, d) averaged sum per image of the vectors a code stands for
    initialised: jax.Array  # () 1 once k-means has placed the codes, else 0


def fresh(key: jax.Array, k: int, d: int, n: int) -> Codebook:
    """Codes N(0, 1), each used n/k times an image: unused ones stay where they are."""
    codes_kd = jax.random.normal(key, (k, d))
    count_k = jnp.full((k,), n / k)
    return Codebook(codes_kd, count_k, codes_kd * count_k[:, None], jnp.zeros(()))


def nearest(x_md: jax.Array, codes_kd: jax.Array) -> jax.Array:
    """The number of the nearest code, int32 (m,); the lower of two equally near."""
    x_md, codes_kd = x_md.astype(jnp.float32), codes_kd.astype(jnp.float32)
    # |x - c|^2 - |x|^2: what the codes differ in
    product_mk = jnp.matmul(x_md, codes_kd.T, precision=HIGHEST)
    less_mk = jnp.square(codes_kd).sum(-1) - 2.0 * product_mk
    return jnp.argmin(less_mk, axis=-1).astype(jnp.int32)


def straight_through(x: jax.Array, quantized: jax.Array) -> jax.Array:
    """`quantized`, with the gradient handed to x as it comes (the paper's eq. 3)."""
    return x + jax.lax.stop_gradient(quantized - x)


def usage(x_bnd: jax.Array, ids_bn: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Per-image means of how often codes are used and of what they stand for.

    Returns count (k,), adding up to n, and sum (k, d).
    """
    b, _, d = x_bnd.shape
    ids_m, x_md = ids_bn.reshape(-1), x_bnd.reshape(-1, d).astype(jnp.float32)
    # A scatter of ones and of rows: 1.6 ms where a one-hot product takes 426 on CPU.
    count_k = jax.ops.segment_sum(jnp.ones_like(ids_m, jnp.float32), ids_m, k)
    return count_k / b, jax.ops.segment_sum(x_md, ids_m, k) / b


def follow(
    book: Codebook, count_k: jax.Array, sum_kd: jax.Array, *, decay: float, eps: float
) -> Codebook:
    """The codebook one batch on: N <- g N + (1-g) n, m <- g m + (1-g) s, e = m / N.

    N is smoothed towards uniform use, (N + eps) / (sum N + k eps) * sum N, so that no
    code divides by zero (taming's EMAVectorQuantizer). `count_k` and `sum_kd` are those
    of `usage`, over the rows of all devices.
    """
    count_k = decay * book.count + (1 - decay) * count_k
    sum_kd = decay * book.sum + (1 - decay) * sum_kd
    total, k = count_k.sum(), len(count_k)
    smooth_k = (count_k + eps) / (total + k * eps) * total
    return book._replace(codes=sum_kd / smooth_k[:, None], count=count_k, sum=sum_kd)


def kmeans(
    key: jax.Array, x_md: jax.Array, k: int, *, iterations: int, limit: int = 16
) -> jax.Array:
    """k centres of the rows of x, (k, d): k-means++ seeding, then Lloyd's iterations.

    Seeds are rows drawn by their squared distance to the seeds before (Arthur and
    Vassilvitskii 2007): in images most rows are alike, and rows drawn evenly would
    all be background. A centre that loses all rows stays. Rows beyond `limit * k` are
    left out, drawn by lot.
    """
    pick_key, seed_key = jax.random.split(key)
    x_md = jnp.asarray(x_md, jnp.float32)
    m = min(len(x_md), limit * k)
    if m < len(x_md):
        x_md = x_md[jax.random.permutation(pick_key, len(x_md))[:m]]
    codes_kd = _seeds(seed_key, x_md, k)

    def lloyd(_: int, codes_kd: jax.Array) -> jax.Array:
        ids_m = nearest(x_md, codes_kd)
        count_k = jax.ops.segment_sum(jnp.ones((m,)), ids_m, k)
        sum_kd = jax.ops.segment_sum(x_md, ids_m, k)
        mean_kd = sum_kd / jnp.maximum(count_k, 1.0)[:, None]
        return jnp.where(count_k[:, None] > 0, mean_kd, codes_kd)

    return jax.lax.fori_loop(0, iterations, lloyd, codes_kd)


def _seeds(key: jax.Array, x_md: jax.Array, k: int) -> jax.Array:
    keys_k = jax.random.split(key, k)
    first = jax.random.randint(keys_k[0], (), 0, len(x_md))
    codes_kd = jnp.zeros((k, x_md.shape[1])).at[0].set(x_md[first])
    far_m = jnp.square(x_md - x_md[first]).sum(-1)

    def draw(i: int, carry: tuple) -> tuple:
        codes_kd, far_m = carry
        row_d = x_md[jax.random.categorical(keys_k[i], jnp.log(far_m))]
        far_m = jnp.minimum(far_m, jnp.square(x_md - row_d).sum(-1))
        return codes_kd.at[i].set(row_d), far_m

    return jax.lax.fori_loop(1, k, draw, (codes_kd, far_m))[0]


def candidates(
    keys_b: jax.Array, x_bnd: jax.Array, quantized_bnd: jax.Array
) -> jax.Array:
    """One vector of each image for `revive`, (b, d), drawn by its squared error."""
    error_bn = jnp.square(x_bnd - quantized_bnd).sum(-1)
    place_b = jax.vmap(jax.random.categorical)(keys_b, jnp.log(error_bn))
    return jnp.take_along_axis(x_bnd, place_b[:, None, None], axis=1)[:, 0]


def revive(
    key: jax.Array, book: Codebook, x_cd: jax.Array, *, below: float
) -> tuple[Codebook, jax.Array]:
    """Moves dead codes to candidates; also says how many there were, float32.

    Dead is what is used less than `below` times the even share. Every candidate serves
    once, in an order drawn by lot; codes for which none is left wait for the next
    batch. A moved code starts at ten times the limit: a hundred averaged steps at
    decay 0.977, or 230 at 0.99, to be used in.

    Args:
      key: of the step, the same on all devices.
      book: after `follow`.
      x_cd: vectors from the batch, of all devices.
      below: share of even use; 0.01 is a hundredth.
    """
    k, c = len(book.count), len(x_cd)
    limit = below * book.count.sum() / k
    dead_k = book.count < limit
    rank_k = jnp.cumsum(dead_k) - 1
    order_c = jax.random.permutation(key, c)
    row_kd = x_cd[order_c[jnp.clip(rank_k, 0, c - 1)]].astype(jnp.float32)
    moved_k = dead_k & (rank_k < c)
    count_k = jnp.where(moved_k, 10 * limit, book.count)
    moved_k1 = moved_k[:, None]
    codes_kd = jnp.where(moved_k1, row_kd, book.codes)
    sum_kd = jnp.where(moved_k1, row_kd * count_k[:, None], book.sum)
    revived = book._replace(codes=codes_kd, count=count_k, sum=sum_kd)
    return revived, dead_k.sum().astype(jnp.float32)
