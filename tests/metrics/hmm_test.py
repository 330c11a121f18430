"""HMMs of several series against all paths of states, one by one."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mmjax.errors import UserError
from mmjax.metrics import hmm

CHAINS = {"one": (("a", "b"),), "coupled": (("a",), ("b",))}
MASK = np.arange(5) < np.array([5, 3, 4])[:, None]


def series(seed=0):
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 5, 2)), "b": rng.normal(size=(3, 5, 1))}


def model(chains, seed=0):
    rng, count = np.random.default_rng(seed), 2 ** len(chains)
    start = tuple(rng.dirichlet(np.ones(2)) for _ in chains)
    move = tuple(rng.dirichlet(np.ones(2), size=count) for _ in chains)
    mean = {"a": rng.normal(size=(2, 2)), "b": rng.normal(size=(2, 1))}
    variance = {k: rng.uniform(0.5, 2, size=v.shape) for k, v in mean.items()}
    return hmm.Hmm(chains, 2, start, move, mean, variance)


@pytest.mark.parametrize("kind", CHAINS)
@pytest.mark.parametrize("names", [("a", "b"), ("b",)])
def test_forward_and_backward_by_enumeration(kind, names):
    made, given = model(CHAINS[kind]), {k: v for k, v in series().items() if k in names}
    log_n, posterior, moved = made.walked(given, MASK)
    states = list(itertools.product(range(2), repeat=len(made.chains)))
    expected = np.zeros_like(moved)
    for n, length in enumerate(MASK.sum(1)):
        total, seen, follows = 0.0, np.zeros_like(posterior[n]), np.zeros_like(moved)
        for path in itertools.product(range(len(states)), repeat=int(length)):
            p = 1.0
            for t, j in enumerate(path):
                for c, emitted in enumerate(made.chains):
                    s = states[j][c]
                    p *= made.move[c][path[t - 1], s] if t else made.start[c][s]
                    for name in (name for name in emitted if name in given):
                        std = np.sqrt(made.variance[name][s])
                        x = given[name][n, t]
                        p *= stats.norm.pdf(x, made.mean[name][s], std).prod()
            total += p
            for t, j in enumerate(path):
                seen[t, j] += p
                if t:
                    follows[path[t - 1], j] += p
        expected += follows / total
        np.testing.assert_allclose(log_n[n], np.log(total), atol=1e-10)
        np.testing.assert_allclose(posterior[n], seen / total, atol=1e-10)
    np.testing.assert_allclose(moved, expected, atol=1e-10)


@pytest.mark.parametrize("kind", CHAINS)
def test_em_never_falls(kind):
    logs = []
    for iterations in range(6):
        how = {"iterations": iterations, "prior": 1e-9, "floor": 0.0}
        made = hmm.fit(series(1), MASK, chains=CHAINS[kind], states=2, **how)
        logs.append(made.walked(series(1), MASK)[0].sum())
    assert (np.diff(logs) > -1e-9).all() and logs[-1] > logs[0] + 0.1


def test_known_states_are_counted():
    state = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [1, 1, 0, 1, 0]])
    chains, x = CHAINS["one"], series(2)
    made = hmm.supervised(x, MASK, state, chains=chains, states=2, floor=0.0, prior=0.0)
    np.testing.assert_allclose(made.start[0], [2 / 3, 1 / 3])
    # 00 01 11 11 | 01 11 | 11 10 01
    np.testing.assert_allclose(made.move[0], [[1 / 4, 3 / 4], [1 / 5, 4 / 5]])
    zeros = x["a"][MASK & (state == 0)]
    np.testing.assert_allclose(made.mean["a"][0], zeros.mean(0))
    np.testing.assert_allclose(made.variance["a"][0], zeros.var(0))


def test_nothing_to_emit():
    with pytest.raises(
        UserError, match="no series of c is emitted: the model has a, b"
    ):
        model(CHAINS["one"]).walked({"c": series()["a"]}, MASK)
