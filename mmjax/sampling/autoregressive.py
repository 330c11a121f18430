"""Drawing sequences token by token from a model that keeps its own cache.

Legend: p prompts, k candidates of each, b = p*k rows, n length, m tokens drawn, v ids.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.sampling import candidates

PyTree = Any
# (state, last tokens (b,), their position ()) -> logits (b, v) of the next, state
Step = Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
DTYPES = ("float32", "bfloat16")
_GREEDY = 1e-5  # temperatures below it: there, rounding decides between logits


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What distribution tokens are drawn from.

    temperature: logits are divided by it. Below 1e-5 the most probable token is drawn
      (and those equal to it), as with top_k 1.
    top_k: only the k most probable tokens (and those equal to the last); 0 is off.
    top_p: only the fewest most probable tokens that hold this much probability (and
      those equal to the last), after top_k (Holtzman et al. 2020); 1 is off.
    guidance: s of `u + s (c - u)`, logits c with and u without the prompt (Ho &
      Salimans 2022; for tokens Crowson 2021); 1 is off, and costs half.
    dtype: of the model's compute and cache.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature is {self.temperature}: use a positive number, and top_k "
                "1 for the most probable token"
            )
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}: use a number, or 1 for off")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: use 1 or more, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: use more than 0 and at most 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}: use {' or '.join(DTYPES)}")

    @property
    def guided(self) -> bool:
        """Whether a second stream of rows, without the prompt, is needed."""
        return self.guidance != 1.0


def _nucleus(logits_bv: jax.Array, mass: float) -> jax.Array:
    """bool (b, v): the fewest most probable ids holding `mass`, ties with the last.

    The threshold is found by bisection over the bits of the probabilities, which for
    floats that are not negative are in the order of the numbers: 31 sums are exact,
    and cheaper than a sort of a large vocabulary.
    """
    probs_bv = jax.nn.softmax(logits_bv, axis=-1)
    bits_bv = jax.lax.bitcast_convert_type(probs_bv, jnp.int32)
    low_b1 = jnp.zeros_like(bits_bv[:, :1])  # a threshold that keeps enough
    high_b1 = bits_bv.max(-1, keepdims=True) + 1  # one that keeps nothing

    def halve(_: int, bounds: tuple) -> tuple:
        low_b1, high_b1 = bounds
        middle_b1 = low_b1 + (high_b1 - low_b1) // 2
        kept_b1 = jnp.where(bits_bv >= middle_b1, probs_bv, 0).sum(-1, keepdims=True)
        enough_b1 = kept_b1 >= mass
        return (
            jnp.where(enough_b1, middle_b1, low_b1),
            jnp.where(enough_b1, high_b1, middle_b1),
        )

    low_b1, _ = jax.lax.fori_loop(0, 31, halve, (low_b1, high_b1))
    return bits_bv >= low_b1


def restrict(logits_bv: jax.Array, options: Sampling) -> jax.Array:
    """Log-probabilities (b, v), float32, of the distribution that `options` ask for.

    Ids that it excludes get -inf.
    """
    v = logits_bv.shape[-1]
    if options.top_k > v:
        raise UserError(f"top_k is {options.top_k}, but there are {v} ids: use less")
    # Each use of the logits could be computed anew and be rounded otherwise, which a
    # small temperature blows up: the maximum has to be one of them, to the last bit.
    logits_bv = jax.lax.optimization_barrier(logits_bv.astype(jnp.float32))
    logits_bv -= logits_bv.max(-1, keepdims=True)
    if options.temperature < _GREEDY:
        logits_bv = jnp.where(logits_bv >= 0, 0.0, -jnp.inf)
    else:
        logits_bv /= options.temperature
    if options.top_k:
        last_b1 = jax.lax.top_k(logits_bv, options.top_k)[0][:, -1:]
        logits_bv = jnp.where(logits_bv >= last_b1, logits_bv, -jnp.inf)
    if options.top_p < 1:
        kept_bv = _nucleus(logits_bv, options.top_p)
        logits_bv = jnp.where(kept_bv, logits_bv, -jnp.inf)
    return jax.nn.log_softmax(logits_bv, axis=-1)


def draw(
    keys_b: jax.Array, logits_bv: jax.Array, options: Sampling
) -> tuple[jax.Array, jax.Array]:
    """Ids int32 (b,) and their log-probabilities (b,) under what they were drawn from.

    Args:
      keys_b: one typed key a row.
      logits_bv: of the rows, already guided.
    """
    logp_bv = restrict(logits_bv, options)
    ids_b = jax.vmap(jax.random.categorical)(keys_b, logp_bv).astype(jnp.int32)
    return ids_b, jnp.take_along_axis(logp_bv, ids_b[:, None], axis=-1)[:, 0]


def generate(
    first_pv: jax.Array,
    step: Step,
    state: PyTree,
    keys_b: jax.Array,
    *,
    start: int,
    length: int,
    options: Sampling,
) -> tuple[jax.Array, jax.Array]:
    """Tokens number `start` to `length - 1` of every row, in one compiled loop.

    Args:
      first_pv: logits of token `start`. With guidance there are twice the prompts: the
        second half are the same without their text.
      step: the model, on rows of a prompt next to each other; with guidance on 2b.
      state: what `step` begins with.
      keys_b: from `candidates.row_keys`; a row's token i is drawn with
        `fold_in(key, i)`.

    Returns:
      ids int32 (b, m) and the sum (b,) of their log-probabilities.
    """
    b = len(keys_b)
    streams = 2 if options.guided else 1
    k = b * streams // len(first_pv)

    def choose(logits_bv: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_bv = logits_bv.astype(jnp.float32)
        if options.guided:
            logits_bv = candidates.guide(logits_bv[:b], logits_bv[b:], options.guidance)
        now_b = jax.vmap(jax.random.fold_in, (0, None))(keys_b, index)
        return draw(now_b, logits_bv, options)

    def body(carry: tuple, index: jax.Array) -> tuple:
        state, ids_b, total_b = carry
        logits_bv, state = step(state, jnp.tile(ids_b, streams), index)
        ids_b, logp_b = choose(logits_bv, index + 1)
        return (state, ids_b, total_b + logp_b), ids_b

    first_b, total_b = choose(jnp.repeat(first_pv, k, axis=0), jnp.int32(start))
    carry = state, first_b, total_b
    (_, _, total_b), rest_mb = jax.lax.scan(
        body, carry, jnp.arange(start, length - 1, dtype=jnp.int32)
    )
    return jnp.concatenate([first_b[:, None], rest_mb.T], axis=1), total_b
