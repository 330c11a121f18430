"""Losses of captions by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses import captions as losses

COUNTED = jnp.asarray([[True, True, False], [True, False, False]])


def test_nats_of_a_caption_are_those_of_its_words():
    nats = jnp.asarray([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    assert losses.total(nats, COUNTED).tolist() == [3, 4]


def test_doubly_stochastic_is_zero_where_every_cell_is_seen_once():
    weight = jnp.asarray([[[1.0, 0], [0, 1], [7, 7]], [[0.5, 0.5], [7, 7], [7, 7]]])
    assert losses.doubly_stochastic(weight, COUNTED).tolist() == [0, 0.5]


def test_the_gradient_of_drawn_cells_is_that_of_what_is_expected():
    """REINFORCE over all cells, weighed by their chance, is the exact gradient."""
    rng = np.random.default_rng(0)
    scores, nats = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=3))
    one, baseline = jnp.ones((1, 1), bool), jnp.float32(0.4)

    def expected(scores):
        return (jax.nn.softmax(scores) * nats).sum()

    def drawn(scores):
        log = jax.nn.log_softmax(scores)
        each = [
            losses.reinforce(
                nats[i : i + 1],
                log[i].reshape(1, 1),
                jnp.zeros((1, 1)),
                one,
                baseline=baseline,
                entropy_weight=0.0,
            )[0]
            for i in range(3)
        ]
        chance = jax.lax.stop_gradient(jax.nn.softmax(scores))
        return (chance * jnp.stack(each)).sum()

    want, got = jax.grad(expected)(scores), jax.grad(drawn)(scores)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_entropy_is_pushed_up():
    args = jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2), bool)
    how = {"baseline": jnp.float32(0), "entropy_weight": 0.5}
    assert losses.reinforce(*args, **how).tolist() == [-1.0]
