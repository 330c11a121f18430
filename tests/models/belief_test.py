"""Stacks against enumeration: a DBN's bound, a modality that is missing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.models import boltzmann
from mmjax.models.belief import Stack
from mmjax.models.boltzmann import Layer


def bits(width):
    return np.array(list(itertools.product((0, 1), repeat=width)), np.float32)


def random_params(stack, seed=0):
    rng = np.random.default_rng(seed)
    params = stack.init(jax.random.key(0), scale=0.1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)


def test_weights_of_a_dbns_bound_average_to_its_probability():
    """E_q[p(v, h) / q(h | v)] = p(v): the log-mean-exp of one-sample bounds."""
    stack = Stack({"v": Layer("bernoulli", 4)}, {"v": (3, 2)}, directed_below=True)
    assert stack.directed.edges == (("v", "v1"),) and stack.top.edges == (("v1", "v2"),)
    params, hidden = random_params(stack), bits(3)
    v = np.array([1, 0, 1, 1], np.float32)
    top = -np.asarray(boltzmann.free_energy(stack.top, params, {"v1": hidden}))
    theta = hidden @ params["weight"]["v"]["v1"].T + params["bias"]["v"]
    given = (v * theta - np.logaddexp(0, theta)).sum(1)
    exact = scipy.special.logsumexp(top + given)
    keys, many = jax.random.split(jax.random.key(1), 4000), np.tile(v, (4000, 1))
    score = jax.jit(lambda k: stack.bound(params, {"v": many}, k, sweeps=1))(keys)
    score = np.asarray(score, np.float64)
    got = scipy.special.logsumexp(score) - np.log(len(score))
    assert got == pytest.approx(exact, abs=0.05)
    assert score.mean() < exact - 0.01


@pytest.mark.parametrize("directed", [False, True])
def test_a_missing_modality_is_drawn_by_its_conditional(directed):
    """Bits under a joint layer, of which words are given."""
    visible = {"bits": Layer("bernoulli", 3), "words": Layer("softmax", 3, words=2)}
    widths = {"bits": (2,) if directed else (), "words": ()}
    stack = Stack(visible, widths, joint=3, directed_below=directed)
    params = random_params(stack, 2)
    words = np.array([[2, 0, 0]], np.float32)
    below = "bits1" if directed else "bits"
    states = bits(stack.machine.layers[below].units)
    rows = {below: states, "words": np.repeat(words, len(states), 0)}
    p = scipy.special.softmax(
        -np.asarray(boltzmann.free_energy(stack.top, params, rows))
    )
    want = p @ states
    if directed:
        theta = states @ params["weight"]["bits"]["bits1"].T + params["bias"]["bits"]
        want = p @ scipy.special.expit(theta)
    keys = jax.random.split(jax.random.key(3), 3000)
    known = {"words": jnp.repeat(words, 3000, 0)}
    drawn = jax.jit(lambda k: stack.sample(params, known, k, sweeps=40))(keys)
    assert set(drawn) == {"bits"}
    np.testing.assert_allclose(drawn["bits"].mean(0), want, atol=0.03)


def test_pretraining_doubles_what_lies_between_layers():
    stack = Stack({"v": Layer("bernoulli", 4)}, {"v": (3, 2, 2)})
    assert [sorted(stage.doubled) for stage in stack.stages] == [["v1", "v2"]] * 3
    params = random_params(stack)
    v = bits(4)[5:7]
    up = stack.upward(params, {"v": v}, {}, {})
    weight, bias = params["weight"], params["bias"]
    h1 = scipy.special.expit(2 * v @ weight["v"]["v1"] + bias["v1"])
    h2 = scipy.special.expit(2 * h1 @ weight["v1"]["v2"] + bias["v2"])
    h3 = scipy.special.expit(h2 @ weight["v2"]["v3"] + bias["v3"])
    for name, want in (("v1", h1), ("v2", h2), ("v3", h3)):
        np.testing.assert_allclose(up[name], want, atol=1e-5)
