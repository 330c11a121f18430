"""Pictures drawn for prompts, by calls of one size however many there are.

Legend: p prompts, k candidates of each, l text positions, r and c the prompts and
candidates of one call.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np

Call = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def call_shape(count: int, k: int, size: int) -> tuple[int, int]:
    """(prompts, candidates) of a call, at most `size` pictures: see `draw`.

    All candidates of a prompt go together where they fit, for the prompt is then read
    once; where they do not, one prompt's are cut into equal parts.
    """
    if k <= size:
        return min(count, size // k), k
    calls = -(-k // size)
    return 1, -(-k // calls)


def draw(
    call: Call, encoded: Mapping[str, np.ndarray], *, k: int, size: int, seed: int
) -> dict[str, np.ndarray]:
    """`k` candidates of every prompt: arrays (p, k, ...) of all that `call` gives.

    Args:
      call: "sample": tokens (r, l), tokens_mask (r, l), seed uint32 (r,), candidate
        int32 (r, c) -> arrays (r, c, ...).
      encoded: tokens int32 (p, l) and tokens_mask bool (p, l).
      size: pictures a call, at most.
      seed: of the first prompt; the next one's is one more. The picture of a prompt
        and a candidate number is the same whatever `k` and `size` are.
    """
    count = len(encoded["tokens"])
    rows, columns = call_shape(count, k, size)
    seed_p = (np.arange(count, dtype=np.int64) + seed).astype(np.uint32)
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, rows):
        # Rows and numbers past the end are drawn and dropped: one shape, one compile.
        take = np.minimum(np.arange(start, start + rows), count - 1)
        batch = {name: array[take] for name, array in encoded.items()}
        pieces = []
        for first in range(0, k, columns):
            numbers = np.arange(first, first + columns, dtype=np.int32)
            candidate_rc = np.broadcast_to(numbers, (rows, columns))
            batch |= {"seed": seed_p[take], "candidate": np.array(candidate_rc)}
            pieces.append(call(batch))
        for name in pieces[0]:
            joined = np.concatenate([np.asarray(p[name]) for p in pieces], axis=1)
            parts.setdefault(name, []).append(joined[: count - start, :k])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def abstract(
    encoded: Mapping[str, np.ndarray], *, k: int, size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a call's batch."""
    rows, columns = call_shape(len(encoded["tokens"]), k, size)
    shapes = {
        name: jax.ShapeDtypeStruct((rows, array.shape[1]), array.dtype)
        for name, array in encoded.items()
    }
    seed = jax.ShapeDtypeStruct((rows,), np.uint32)
    candidate = jax.ShapeDtypeStruct((rows, columns), np.int32)
    return {**shapes, "seed": seed, "candidate": candidate}
