"""Text towers: what they must not see, and the bag of words by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.text import CBOW, TextTransformer

VOCAB, CONTEXT = 30, 8


def tower():
    return TextTransformer(
        width=16, depth=2, heads=2, vocab_size=VOCAB, context=CONTEXT
    )


def tokens_bl():
    """Two captions: start 28, words, end 29, padding 0."""
    return jnp.array([[28, 3, 4, 29, 0, 0, 0, 0], [28, 5, 6, 7, 8, 9, 10, 29]])


def test_pooled_at_the_end_token_and_blind_to_padding():
    module, tokens = tower(), tokens_bl()
    variables = jax.jit(module.init)(jax.random.key(0), tokens)
    apply = jax.jit(module.apply, static_argnames="method")
    want = apply(variables, tokens)
    sequence = apply(variables, tokens, method="sequence")
    np.testing.assert_allclose(
        want, sequence[jnp.arange(2), jnp.array([3, 7])], atol=1e-5
    )
    junk = tokens.at[0, 4:].set(jnp.array([5, 6, 7, 8]))
    np.testing.assert_allclose(apply(variables, junk), want, atol=1e-6)
    short = apply(variables, tokens[:1, :4])
    np.testing.assert_allclose(short, want[:1], atol=1e-5)


def test_bag_of_words_is_the_mean_of_unmasked_embeddings():
    module, tokens = CBOW(width=5, vocab_size=VOCAB), tokens_bl()
    mask = tokens > 0
    variables = module.init(jax.random.key(0), tokens, mask)
    table = np.asarray(variables["params"]["token_embedding"])
    want = [table[[28, 3, 4, 29]].mean(0), table[np.asarray(tokens[1])].mean(0)]
    np.testing.assert_allclose(module.apply(variables, tokens, mask), want, atol=1e-6)
    swapped = tokens.at[0, 1:3].set(jnp.array([4, 3]))
    np.testing.assert_allclose(module.apply(variables, swapped, mask), want, atol=1e-6)
    empty = module.apply(variables, tokens, jnp.zeros_like(mask))
    np.testing.assert_array_equal(empty, 0)


def test_siglips_tower_reads_both_ways_and_pools_at_the_last_position():
    module = TextTransformer(
        width=16,
        depth=2,
        heads=2,
        vocab_size=VOCAB,
        context=CONTEXT,
        causal=False,
        pool="last",
    )
    tokens = tokens_bl()
    variables = module.init(jax.random.key(0), tokens)
    want = module.apply(variables, tokens)
    sequence = module.apply(variables, tokens, method="sequence")
    np.testing.assert_allclose(want, sequence[:, -1], atol=1e-5)
    changed = module.apply(variables, tokens.at[:, 1].set(2), method="sequence")
    assert (np.abs(changed[:, 0] - sequence[:, 0]).max(-1) > 1e-5).all()


def test_pooling_at_the_end_needs_causality():
    module = TextTransformer(vocab_size=VOCAB, context=CONTEXT, causal=False)
    with pytest.raises(UserError, match="use pool last"):
        module.init(jax.random.key(0), tokens_bl())
