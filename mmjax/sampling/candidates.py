"""What all generators share: a candidate's own randomness, and guidance.

Legend: p prompts, k candidates of each.
"""

import jax


def row_keys(seed_p: jax.Array, candidate_pk: jax.Array) -> jax.Array:
    """One typed key a row, (p*k,): `fold_in(key(seed), candidate)`.

    A candidate follows from its prompt, seed and number alone, whatever the other rows
    are.
    """

    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
    return fold(jax.vmap(jax.random.key)(seed_p), candidate_pk).reshape(-1)


def guide(given: jax.Array, without: jax.Array, scale: float) -> jax.Array:
    """What a model gives, pushed away from what it gives without the prompt.

    `without + scale (given - without)` (Ho and Salimans 2022), of logits or of a
    denoiser's predictions.
    """
    return without + scale * (given - without)
