"""The most probable sequences of a model, by beam search over its apply-callables.

Legend: p prompts, k beams of each, b = p*k rows, m tokens at most, v ids.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.sampling.autoregressive import Step

PyTree = Any


class _Beams(NamedTuple):
    index: jax.Array  # tokens chosen so far
    live_ids: jax.Array  # (p, k, m)
    live: jax.Array  # (p, k) sums of log-probabilities
    done_ids: jax.Array
    done: jax.Array  # (p, k) scores
    logits: jax.Array  # (b, v) of the next token
    state: PyTree


def search(
    first_pv: jax.Array,
    step: Step,
    state: PyTree,
    *,
    beam: int,
    length: int,
    end: jax.Array | int,
    length_norm: float = 0.0,
    forbid: tuple[int, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """The `beam` best sequences of every prompt, in one compiled loop.

    A sequence's score is its log-probability, its end included, over its number of
    tokens to the power `length_norm`: 0 is the probability itself, 1 the mean. Every
    step looks at the 2 k most probable tokens of a prompt. Those that end a sequence
    and are among the first k compete with what has ended before; the first k others go
    on. The loop stops where none of these can pass the k that have ended, and those
    that reach `length` tokens without an end compete as they are. One beam is greedy.

    Args:
      first_pv: logits of token 0.
      step: the model, on rows of a prompt next to each other.
      state: what `step` begins with: arrays with b rows first.
      end: the id that ends a sequence.
      forbid: ids that are never chosen; their probability stays theirs.

    Returns:
      ids int32 (p, k, m), the best first, filled with `end`; their scores (p, k),
      -inf where there are fewer sequences than beams.

    Raises:
      UserError: more beams than ids.
    """
    p, v = first_pv.shape
    if not 1 <= beam <= v - len(forbid):
        raise UserError(
            f"beam is {beam}, and the vocabulary has {v - len(forbid)} ids to choose "
            f"from: use 1 to {v - len(forbid)}"
        )
    least_v = without(jnp.zeros((1, v)), forbid)

    def norm(tokens: jax.Array | int) -> jax.Array:
        return jnp.asarray(tokens, jnp.float32) ** length_norm

    def going_on(beams: _Beams) -> jax.Array:
        # the least that a log-probability is divided by, at 0 or more of length_norm
        furthest = norm(length) if length_norm > 0 else norm(beams.index + 1)
        hopeful_p = beams.live[:, 0] / furthest > beams.done[:, -1]
        return (beams.index < length) & hopeful_p.any()

    beams = _first(first_pv, state, beam, length, end)
    beams = jax.lax.while_loop(
        going_on, lambda beams: _extend(beams, step, end, least_v, norm), beams
    )
    left_pk = jnp.where(beams.index == length, beams.live / norm(length), -jnp.inf)
    return _best(
        jnp.concatenate([beams.done_ids, beams.live_ids], axis=1),
        jnp.concatenate([beams.done, left_pk], axis=1),
        beam,
    )


def _extend(
    beams: _Beams,
    step: Step,
    end: jax.Array | int,
    least_v: jax.Array,
    norm: Callable[[jax.Array], jax.Array],
) -> _Beams:
    """All beams with one token more. least_v: -inf at ids that are forbidden."""
    (p, beam, _), v = beams.live_ids.shape, beams.logits.shape[-1]
    logits_bv = beams.logits.astype(jnp.float32)
    offset_b = beams.live.reshape(-1) - jax.nn.logsumexp(logits_bv, axis=-1)
    sums_bv = logits_bv + offset_b[:, None] + least_v
    top_pc, flat_pc = jax.lax.top_k(sums_bv.reshape(p, -1), 2 * beam)
    parent_pc, id_pc = flat_pc // v, (flat_pc % v).astype(jnp.int32)
    ids_pcm = jnp.take_along_axis(beams.live_ids, parent_pc[..., None], axis=1)
    ids_pcm = ids_pcm.at[..., beams.index].set(id_pc)
    ended_pc = id_pc == end
    best_c = jnp.arange(2 * beam) < beam  # an end outside of them is no sequence
    score_pc = jnp.where(ended_pc & best_c, top_pc / norm(beams.index + 1), -jnp.inf)
    done_ids, done = _best(
        jnp.concatenate([beams.done_ids, ids_pcm], axis=1),
        jnp.concatenate([beams.done, score_pc], axis=1),
        beam,
    )
    live, place_pk = jax.lax.top_k(jnp.where(ended_pc, -jnp.inf, top_pc), beam)
    live_ids = jnp.take_along_axis(ids_pcm, place_pk[..., None], axis=1)
    parent_pk = jnp.take_along_axis(parent_pc, place_pk, axis=1)
    row_b = (jnp.arange(p)[:, None] * beam + parent_pk).reshape(-1)
    kept = jax.tree.map(lambda x: x[row_b], beams.state)
    last_b = live_ids[..., beams.index].reshape(-1)
    logits_bv, kept = step(kept, last_b, beams.index)
    return _Beams(beams.index + 1, live_ids, live, done_ids, done, logits_bv, kept)


def _first(
    first_pv: jax.Array, state: PyTree, beam: int, length: int, end: jax.Array | int
) -> _Beams:
    """One live beam of every prompt, that has said nothing."""
    ids_pkm = jnp.full((len(first_pv), beam, length), end, jnp.int32)
    worst_pk = jnp.full(ids_pkm.shape[:2], -jnp.inf)
    return _Beams(
        index=jnp.int32(0),
        live_ids=ids_pkm,
        live=worst_pk.at[:, 0].set(0.0),
        done_ids=ids_pkm,
        done=worst_pk,
        logits=jnp.repeat(first_pv.astype(jnp.float32), beam, axis=0),
        state=state,
    )


def _best(
    ids_pcm: jax.Array, score_pc: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """The `count` sequences of the highest score, the best first."""
    score_pk, place_pk = jax.lax.top_k(score_pc, count)
    return jnp.take_along_axis(ids_pcm, place_pk[..., None], axis=1), score_pk


def ended(step: Step, end: jax.Array | int, forbid: tuple[int, ...] = ()) -> Step:
    """`step`, whose rows say `end` for ever once they have; `forbid` as of `search`."""

    def call(state: PyTree, ids_b: jax.Array, index: jax.Array) -> tuple:
        logits_bv, state = step(state, ids_b, index)
        logits_bv = without(logits_bv, forbid)
        at_end_v = jnp.where(jnp.arange(logits_bv.shape[-1]) == end, 0.0, -jnp.inf)
        return jnp.where((ids_b == end)[:, None], at_end_v, logits_bv), state

    return call


def without(logits_bv: jax.Array, forbid: tuple[int, ...]) -> jax.Array:
    """Logits of all ids but those that are forbidden."""
    return logits_bv.at[:, jnp.array(forbid, jnp.int32)].set(-jnp.inf)
