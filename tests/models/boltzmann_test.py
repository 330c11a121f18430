"""Machines small enough to enumerate: energies, free energies, conditionals, AIS."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.metrics import bootstrap
from mmjax.models import boltzmann
from mmjax.models.boltzmann import Layer, Machine

BITS = Layer("bernoulli", 5)
RBM = Machine({"v": BITS, "h": Layer("bernoulli", 4)}, (("v", "h"),))
DBM = Machine(
    {"v": BITS, "h1": Layer("bernoulli", 4), "h2": Layer("bernoulli", 3)},
    (("v", "h1"), ("h1", "h2")),
)
GAUSS = Machine({"v": Layer("gaussian", 3), "h": Layer("bernoulli", 4)}, (("v", "h"),))
WORDS = Machine(
    {"v": Layer("softmax", 3, words=4), "h": Layer("bernoulli", 3)}, (("v", "h"),)
)
JOINED = Machine(
    {
        "a": Layer("bernoulli", 3),
        "b": Layer("softmax", 3, words=2),
        "a1": Layer("bernoulli", 2),
        "joint": Layer("bernoulli", 3),
    },
    (("a", "a1"), ("a1", "joint"), ("b", "joint")),
)
MACHINES = {"rbm": RBM, "dbm": DBM, "words": WORDS, "joined": JOINED}


def random_params(machine: Machine, scale: float = 1.0, seed: int = 0):
    """Parameters N(0, scale^2), biases among them."""
    rng = np.random.default_rng(seed)
    params = boltzmann.init(machine, jax.random.key(0))
    return jax.tree.map(
        lambda x: scale * rng.normal(size=x.shape).astype(np.float32), params
    )


def every_state(layer: Layer) -> np.ndarray:
    """All states (n, d); of words, all documents in order, as counts."""
    if layer.kind == "bernoulli":
        return np.array(list(itertools.product((0.0, 1.0), repeat=layer.units)))
    words = itertools.product(range(layer.units), repeat=layer.words)
    return np.array([np.bincount(w, minlength=layer.units) for w in words], float)


def every_row(machine: Machine) -> dict[str, np.ndarray]:
    """All states of the whole machine, one a row."""
    each = [every_state(layer) for layer in machine.layers.values()]
    places = list(itertools.product(*(range(len(states)) for states in each)))
    picked = np.array(places).T
    return {
        name: states[place].astype(np.float32)
        for name, states, place in zip(machine.layers, each, picked, strict=True)
    }


def energy(machine: Machine, params, row: dict[str, np.ndarray]) -> float:
    """By loops, in float64."""
    total = 0.0
    for name, layer in machine.layers.items():
        words = 1.0
        for a, b in machine.edges:
            below = [low for low, up in machine.edges if up == name]
            if b == name and machine.layers[a].kind == "softmax" and len(below) == 1:
                words = row[a].sum()
        for x, bias in zip(row[name], params["bias"][name], strict=True):
            total -= words * float(x) * float(bias)
            total += 0.5 * float(x) ** 2 if layer.kind == "gaussian" else 0.0
    for a, b in machine.edges:
        weight = np.asarray(params["weight"][a][b], np.float64)
        total -= float(row[a].astype(float) @ weight @ row[b].astype(float))
    return total


@pytest.mark.parametrize("name", MACHINES)
def test_energy_and_free_energy_by_enumeration(name: str):
    machine = MACHINES[name]
    params, rows = random_params(machine), every_row(machine)
    count = len(next(iter(rows.values())))
    want = np.array(
        [
            energy(machine, params, {n: x[i] for n, x in rows.items()})
            for i in range(count)
        ]
    )
    got = boltzmann.free_energy(machine, params, rows)
    np.testing.assert_allclose(got, want, atol=1e-4)
    for side in machine.colours:  # each colour summed out
        known = {n: rows[n] for n in rows if n not in side}
        key = np.concatenate(list(known.values()), axis=1)
        _, group = np.unique(key, axis=0, return_inverse=True)
        free = np.asarray(boltzmann.free_energy(machine, params, known), np.float64)
        # documents of the same counts are several: every one sums over the rest
        copies = count / math.prod(len(every_state(machine.layers[n])) for n in side)
        for g in range(3):
            rows_g = np.flatnonzero(group.ravel() == g)
            each = len(rows_g) / math.prod(
                len(every_state(machine.layers[n])) for n in side
            )
            total = scipy.special.logsumexp(-want[rows_g]) - math.log(each)
            assert -free[rows_g[0]] == pytest.approx(total, abs=2e-4)
        assert copies >= 1


def test_gaussian_free_energies_by_quadrature():
    params = random_params(GAUSS)
    hidden = every_state(GAUSS.layers["h"]).astype(np.float32)
    grid = np.linspace(-12, 12, 61)
    points = np.array(list(itertools.product(grid, repeat=3)), np.float32)
    cell = (grid[1] - grid[0]) ** 3
    both = {"h": np.repeat(hidden[5:6], len(points), 0), "v": points}
    want = scipy.special.logsumexp(
        -np.asarray(boltzmann.free_energy(GAUSS, params, both), np.float64)
    ) + math.log(cell)
    got = -boltzmann.free_energy(GAUSS, params, {"h": hidden[5:6]})[0]
    assert float(got) == pytest.approx(want, abs=1e-3)
    v = points[1234:1235]
    each = [energy(GAUSS, params, {"v": v[0], "h": h}) for h in hidden]
    got = -boltzmann.free_energy(GAUSS, params, {"v": v})[0]
    assert float(got) == pytest.approx(
        scipy.special.logsumexp(-np.array(each)), abs=1e-4
    )


def test_conditionals_are_those_of_scikit_learn():
    """BernoulliRBM's `_mean_hiddens` and `_sample_visibles`, written out."""
    params, rng = random_params(RBM), np.random.default_rng(1)
    v = (rng.random((7, 5)) < 0.5).astype(np.float32)
    components_hv = np.asarray(params["weight"]["v"]["h"]).T
    hidden = v @ components_hv.T + np.asarray(params["bias"]["h"])
    got = boltzmann.means(RBM, params, {"v": v}, ["h"])["h"]
    np.testing.assert_allclose(got, scipy.special.expit(hidden), atol=1e-6)
    h = (rng.random((7, 4)) < 0.5).astype(np.float32)
    visible = h @ components_hv + np.asarray(params["bias"]["v"])
    got = boltzmann.means(RBM, params, {"h": h}, ["v"])["v"]
    np.testing.assert_allclose(got, scipy.special.expit(visible), atol=1e-6)
    free = -v @ np.asarray(params["bias"]["v"]) - np.logaddexp(0, hidden).sum(1)
    np.testing.assert_allclose(
        boltzmann.free_energy(RBM, params, {"v": v}), free, atol=1e-5
    )


@pytest.mark.parametrize("name", ["dbm", "joined"])
def test_gibbs_sampling_has_the_machine_as_its_equilibrium(name: str):
    machine = MACHINES[name]
    params, rows = random_params(machine, 0.7), every_row(machine)
    log_p = -np.asarray(boltzmann.free_energy(machine, params, rows), np.float64)
    p = np.exp(log_p - scipy.special.logsumexp(log_p))
    keys = jax.random.split(jax.random.key(3), 4000)
    zeros = jax.tree.map(jnp.zeros_like, params)
    second = machine.colours[1]
    uniform = boltzmann.noise(machine, keys, second)
    begin = boltzmann.draws(machine, zeros, {}, second, uniform)
    drawn = jax.jit(lambda s, k: boltzmann.gibbs(machine, params, s, k, sweeps=30))(
        begin, keys
    )
    for layer, x in rows.items():
        np.testing.assert_allclose(drawn[layer].mean(0), p @ x, atol=0.05)
    for a, b in machine.edges:
        want = (p[:, None] * rows[a]).T @ rows[b]
        np.testing.assert_allclose(drawn[a].T @ drawn[b] / len(keys), want, atol=0.08)


def test_clamped_layers_stay():
    params = random_params(JOINED)
    keys = jax.random.split(jax.random.key(0), 3)
    given = {"a": jnp.eye(3)}
    drawn = jax.jit(
        lambda states: boltzmann.gibbs(
            JOINED, params, states, keys, sweeps=4, clamped=["a"]
        )
    )(given | {"a1": jnp.zeros((3, 2)), "b": jnp.zeros((3, 3))})
    np.testing.assert_array_equal(drawn["a"], given["a"])
    assert (drawn["b"].sum(1) == 2).all()


def test_rows_are_drawn_by_their_own_keys():
    params, keys = random_params(DBM), jax.random.split(jax.random.key(5), 6)
    run = jax.jit(lambda s, k: boltzmann.gibbs(DBM, params, s, k, sweeps=3))
    whole = run({"h1": jnp.zeros((6, 4))}, keys)
    half = run({"h1": jnp.zeros((3, 4))}, keys[3:])
    for name in whole:
        np.testing.assert_array_equal(whole[name][3:], half[name])


def test_the_bound_is_exact_for_an_rbm_and_below_for_a_dbm():
    v = every_state(BITS).astype(np.float32)
    params = random_params(RBM)
    got = boltzmann.bound(RBM, params, {"v": v}, sweeps=5)
    np.testing.assert_allclose(
        got, -boltzmann.free_energy(RBM, params, {"v": v}), atol=1e-4
    )
    params, rows = random_params(DBM), every_row(DBM)
    log_p = -np.asarray(boltzmann.free_energy(DBM, params, rows), np.float64)
    exact = [scipy.special.logsumexp(log_p[(rows["v"] == x).all(1)]) for x in v]
    gaps = np.array(exact) - np.asarray(
        jax.jit(lambda v: boltzmann.bound(DBM, params, {"v": v}, sweeps=50))(v)
    )
    assert (gaps > -1e-4).all() and gaps.mean() < 0.5


def test_missing_layers_are_inferred_where_rows_lack_them():
    params = random_params(JOINED)
    known = {"a": jnp.ones((2, 3)), "b": jnp.array([[2.0, 0, 0], [9, 9, 9]])}
    have = jnp.array([True, False])
    got = boltzmann.mean_field(JOINED, params, known, sweeps=20, trusted={"b": have})
    np.testing.assert_array_equal(got["b"][0], known["b"][0])
    alone = boltzmann.mean_field(JOINED, params, {"a": known["a"][1:]}, sweeps=20)
    np.testing.assert_allclose(got["b"][1:], alone["b"], atol=1e-5)
    assert float(got["b"][1].sum()) == pytest.approx(2, abs=1e-5)


def log_z(machine: Machine, params, summed: str) -> float:
    """By enumeration of one colour, which is the layer `summed` of bits."""
    free = jax.jit(lambda x: boltzmann.free_energy(machine, params, {summed: x}))
    units, parts = machine.layers[summed].units, []
    for numbers in np.array_split(np.arange(2**units), max(1, 2**units >> 16)):
        states = (numbers[:, None] >> np.arange(units)) & 1
        parts.append(np.asarray(free(states.astype(np.float32)), np.float64))
    return float(scipy.special.logsumexp(-np.concatenate(parts)))


@pytest.mark.parametrize(
    ("kind", "hidden", "words"), [("rbm", 20, 0), ("dbm", 14, 0), ("words", 14, 5)]
)
def test_annealed_importance_sampling_within_a_fifth_of_a_nat(
    kind: str, hidden: int, words: int
):
    """Hidden units are summed over by enumeration; the interval holds the sum."""
    visible = Layer("softmax", 40, words) if words else Layer("bernoulli", 30)
    layers = {"v": visible, "h": Layer("bernoulli", hidden)}
    edges = (("v", "h"),)
    if kind == "dbm":
        layers["h2"], edges = Layer("bernoulli", 30), (*edges, ("h", "h2"))
    machine = Machine(layers, edges)
    params = random_params(machine, 0.4)
    exact = log_z(machine, params, "h")
    base = boltzmann.base_rates(machine, params, {"v": params["bias"]["v"]})
    keys = jax.random.split(jax.random.key(0), 64)
    betas = jnp.linspace(0, 1, 1001)
    log_w = np.asarray(
        jax.jit(lambda k, b: boltzmann.annealed(machine, params, base, k, b))(
            keys, betas
        )
    )

    def estimate(weight_n):
        return scipy.special.logsumexp(log_w, b=weight_n) - math.log(weight_n.sum())

    assert estimate(np.ones(64)) == pytest.approx(exact, abs=0.2)
    low, high = bootstrap.interval(estimate, 64)
    assert low - 0.1 < exact < high + 0.1 and high - low < 0.5


def test_annealing_no_weights_is_exact():
    params = random_params(RBM)
    params["weight"]["v"]["h"] = np.zeros((5, 4), np.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    base = boltzmann.base_rates(RBM, params, {"v": params["bias"]["v"]})
    log_w = boltzmann.annealed(RBM, params, params, keys, jnp.array([0.0, 0.5, 1.0]))
    want = np.logaddexp(0, params["bias"]["v"]).sum()
    want += np.logaddexp(0, params["bias"]["h"]).sum()
    np.testing.assert_allclose(log_w, want, atol=1e-5)
    first = boltzmann.annealed(RBM, params, base, keys, jnp.array([0.0, 0.0]))
    want = np.logaddexp(0, params["bias"]["v"]).sum() + 4 * math.log(2)
    np.testing.assert_allclose(first, want, atol=1e-5)


def test_three_colours_are_refused():
    layers = {name: Layer("bernoulli", 2) for name in "abc"}
    with pytest.raises(ValueError, match="third colour"):
        _ = Machine(layers, (("a", "b"), ("b", "c"), ("a", "c"))).colours
