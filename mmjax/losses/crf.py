"""The linear-chain conditional random field (Lafferty et al. 2001), in nats, float32.

    log p(y | x) = sum_t scores[t, y_t] + sum_t transition[y_{t-1}, y_t] - log Z

Steps whose mask is False are passed over: a chain goes from the step that counts before
them to the one after.

Legend: b rows, t steps, k classes; i and j classes of a step and of the next.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Reduce = Callable[[jax.Array], jax.Array]


def _walk(
    scores_btk: jax.Array, mask_bt: jax.Array, transition_kk: jax.Array, reduce: Reduce
) -> jax.Array:
    """`reduce` over the classes of all steps but the last one that counts, (b, k)."""

    def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
        (past_bk, begun_b), (score_bk, on_b) = carry, now
        joint_bij = past_bk[:, :, None] + transition_kk
        moved_bk = jnp.where(begun_b[:, None], reduce(joint_bij), 0.0) + score_bk
        past_bk = jnp.where(on_b[:, None], moved_bk, past_bk)
        return (past_bk, begun_b | on_b), None

    b, _, k = scores_btk.shape
    start = jnp.zeros((b, k)), jnp.zeros(b, bool)
    steps = jnp.moveaxis(scores_btk.astype(jnp.float32), 1, 0), mask_bt.T
    return jax.lax.scan(step, start, steps)[0][0]


def log_partition(
    scores_btk: jax.Array, mask_bt: jax.Array, transition_kk: jax.Array
) -> jax.Array:
    """`log Z` of every row, (b,)."""

    def reduce(joint_bij: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(joint_bij, axis=1)

    last_bk = _walk(scores_btk, mask_bt, transition_kk, reduce)
    total_b = jax.nn.logsumexp(last_bk, axis=1)
    return jnp.where(mask_bt.any(1), total_b, 0.0)


def path_score(
    scores_btk: jax.Array,
    label_bt: jax.Array,
    mask_bt: jax.Array,
    transition_kk: jax.Array,
) -> jax.Array:
    """The unnormalised log-probability of the labels, (b,)."""
    k = scores_btk.shape[-1]
    own_btk = (label_bt[..., None] == jnp.arange(k)) & mask_bt[..., None]
    picked_btk = jnp.where(own_btk, scores_btk.astype(jnp.float32), -jnp.inf)
    picked_btk = jnp.where(mask_bt[..., None], picked_btk, 0.0)
    # Of one class a step, the walk has one path to sum over.
    return log_partition(picked_btk, mask_bt, transition_kk)


def nll(
    scores_btk: jax.Array,
    label_bt: jax.Array,
    mask_bt: jax.Array,
    transition_kk: jax.Array,
) -> jax.Array:
    """`-log p(y | x)` of every row, (b,); 0 of one without steps.

    Args:
      scores_btk: of the classes of each step, any float dtype.
      label_bt: int32, of the steps that count.
      mask_bt: bool.
      transition_kk: from the class of a step to that of the next.
    """
    args = mask_bt, transition_kk
    own_b = path_score(scores_btk, label_bt, *args)
    return log_partition(scores_btk, *args) - own_b


def viterbi(
    scores_btk: jax.Array, mask_bt: jax.Array, transition_kk: jax.Array
) -> jax.Array:
    """The most probable labels, int32 (b, t); of steps that do not count, any.

    They are where the gradient of the best path's score by the scores is 1; where paths
    tie, each step's class is of one of them.
    """

    def best(scores_btk: jax.Array) -> jax.Array:
        def reduce(joint_bij: jax.Array) -> jax.Array:
            return joint_bij.max(1)

        last_bk = _walk(scores_btk, mask_bt, transition_kk, reduce)
        return last_bk.max(1).sum()

    on_path_btk = jax.grad(best)(scores_btk.astype(jnp.float32))
    return on_path_btk.argmax(-1).astype(jnp.int32)
