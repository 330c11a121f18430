"""The k nearest rows by inner product, exact, in chunks on the devices.

Legend: q queries, n rows of a chunk, d width, k results, v devices, g groups.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.retrieval import store

CHUNK = 1 << 16  # rows on the devices at a time
QUERIES = 64  # at a time: with CHUNK, 16 MiB of scores
GROUP = 64  # rows whose best score stands for them in the first look
RESIDENT = 1 << 30  # bytes of rows that stay on the devices between two searches


class Exact:
    """Searches shards of rows; those that fit `resident` bytes are copied once.

    Equal scores are in the order of rows, whatever the chunks and the devices, as a
    stable sort of all scores would have them.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        placed: NamedSharding,
        *,
        chunk: int = CHUNK,
        resident: int = RESIDENT,
    ):
        """shards: (n, d) arrays of one float type. placed: rows over the devices."""
        self._shards, self._placed = tuple(shards), placed
        self.count = sum(map(len, shards))
        self.width = shards[0].shape[1]
        self.devices = placed.mesh.size
        if self.count >= 2**31 - CHUNK:
            raise UserError(f"{self.count} rows: an index holds fewer than 2^31")
        unit = self.devices * GROUP
        longest = min(chunk, max(map(len, shards)))
        self._chunk = -(-longest // unit) * unit
        size = self.count * self.width * shards[0].dtype.itemsize
        self._kept = list(self._chunks()) if size <= resident else None

    def _chunks(self):
        """(first row, how many are real, rows on the devices, padded by zeros)."""
        for first, rows_nd in store.blocks(self._shards, self._chunk):
            real = len(rows_nd)
            if real < self._chunk:
                rows_nd = np.pad(rows_nd, ((0, self._chunk - real), (0, 0)))
            yield first, real, jax.device_put(rows_nd, self._placed)

    def search(self, queries_qd: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best first: scores float32 (q, k) and positions int64 (q, k).

        k is cut to the number of rows.

        Raises:
          UserError: queries or rows are not finite, of another width, or k is below 1.
        """
        queries_qd = checked(queries_qd, self.width, k)
        k, total = min(k, self.count), len(queries_qd)
        size = next((s for s in (1, 8) if total <= s), QUERIES)
        padded = np.pad(queries_qd, ((0, -total % size), (0, 0)))
        groups = [jnp.asarray(part) for part in np.split(padded, len(padded) // size)]
        empty = (
            np.full((self.devices, size, k), -np.inf, np.float32),
            np.full((self.devices, size, k), -1, np.int32),
        )
        best = [jax.device_put(empty, self._placed) for _ in groups]
        for first, real, rows_nd in self._kept or self._chunks():
            span = np.asarray([first, real], np.int32)
            for i, part in enumerate(groups):
                best[i] = _look(self._placed, rows_nd, part, span, *best[i])
        # The devices' lists as one: (g, v, q, k) to (g * q, v * k).
        scores, rows = (
            np.stack(parts).transpose(0, 2, 1, 3).reshape(len(padded), -1)[:total]
            for parts in zip(*best, strict=True)
        )
        ranked(scores, rows)
        order_qk = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores_qk = np.take_along_axis(scores, order_qk, 1)
        return scores_qk, np.take_along_axis(rows, order_qk, 1).astype(np.int64)


def checked(queries_qd: np.ndarray, width: int, k: int) -> np.ndarray:
    """The queries as float32, or a UserError that says what is wrong with them."""
    queries_qd = np.asarray(queries_qd, np.float32)
    if queries_qd.ndim != 2 or queries_qd.shape[1] != width or not len(queries_qd):
        raise UserError(
            f"queries of shape {queries_qd.shape} in an index of width {width}: give "
            f"(q, {width}), embedded by the model that made the index"
        )
    if not np.isfinite(queries_qd).all():
        raise UserError("a query holds NaN or Inf: the weights that made it are broken")
    if k < 1:
        raise UserError(f"{k} results asked for: use 1 or more")
    return queries_qd


def ranked(scores: np.ndarray, rows: np.ndarray) -> None:
    """UserError for a row whose score is NaN or Inf: it would come first."""
    bad = rows[np.isnan(scores) | (scores == np.inf)]
    if bad.size:
        raise UserError(
            f"row {bad.min()} of the index holds NaN or Inf: build the index again"
        )


@functools.partial(jax.jit, static_argnums=0)
def _look(
    placed: NamedSharding,
    rows_nd: jax.Array,
    queries_qd: jax.Array,
    span: jax.Array,
    best_vqk: jax.Array,
    at_vqk: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Each device's best so far, with its rows of one more chunk.

    span: int32 (2,), position of the chunk's first row, and how many are no padding.
    """
    over, same = placed.spec, PartitionSpec()

    def local(rows_nd, queries_qd, span, best_vqk, at_vqk):
        scores_qn = jnp.einsum(
            "qd,nd->qn",
            queries_qd,
            rows_nd.astype(jnp.float32),
            precision=jax.lax.Precision.HIGHEST,
        )
        offset = jax.lax.axis_index(over[0]) * len(rows_nd)
        real_n = jnp.arange(len(rows_nd)) + offset < span[1]
        scores_qn = jnp.where(real_n, scores_qn, -jnp.inf)
        k = best_vqk.shape[-1]
        new_qk, where_qk = top(scores_qn, min(k, len(rows_nd)))
        both = jnp.concatenate([best_vqk[0], new_qk], 1)
        places = jnp.concatenate([at_vqk[0], where_qk + offset + span[0]], 1)
        best_qk, chosen_qk = jax.lax.top_k(both, k)
        at_qk = jnp.take_along_axis(places, chosen_qk, axis=1)
        return best_qk[None], at_qk[None]

    return jax.shard_map(
        local,
        mesh=placed.mesh,
        in_specs=(over, same, same, over, over),
        out_specs=(over, over),
    )(rows_nd, queries_qd, span, best_vqk, at_vqk)


def top(scores_qn: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of long rows at a fraction of its time, ties included.

    The k best lie in the k groups of GROUP neighbours with the best maxima: were one
    of them outside, each of those k groups would hold a number that is as good and
    comes before it. n divides by GROUP.
    """
    groups_qgm = scores_qn.reshape(len(scores_qn), -1, GROUP)
    if groups_qgm.shape[1] <= k:
        return jax.lax.top_k(scores_qn, k)
    _, group_qk = jax.lax.top_k(groups_qgm.max(-1), k)
    group_qk = jnp.sort(group_qk, axis=1)  # candidates in their order: ties too
    found_qkm = jnp.take_along_axis(groups_qgm, group_qk[..., None], axis=1)
    best_qk, at_qk = jax.lax.top_k(found_qkm.reshape(len(scores_qn), -1), k)
    chosen_qk = jnp.take_along_axis(group_qk, at_qk // GROUP, axis=1)
    return best_qk, chosen_qk * GROUP + at_qk % GROUP
