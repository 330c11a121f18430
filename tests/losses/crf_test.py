"""The conditional random field against all paths, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses import crf

B, T, K = 4, 4, 3
MASK = np.array(
    [[True] * 4, [True, True, False, False], [True, False, True, True], [False] * 4]
)


def problem(seed=0):
    rng = np.random.default_rng(seed)
    scores, move = rng.normal(size=(B, T, K)), rng.normal(size=(K, K))
    label = rng.integers(K, size=(B, T))
    return np.float32(scores), np.float32(move), label


def paths(scores_tk, move, mask_t):
    """{path over the steps that count: its score}."""
    steps = np.flatnonzero(mask_t)
    found = {}
    for path in itertools.product(range(K), repeat=len(steps)):
        total = sum(scores_tk[t, y] for t, y in zip(steps, path, strict=True))
        found[path] = total + sum(move[i, j] for i, j in itertools.pairwise(path))
    return found


def test_likelihood_marginals_and_best_path_by_enumeration():
    scores, move, label = problem()

    @jax.jit
    def both(scores, move):
        args = MASK, move
        return (
            crf.nll(scores, label, *args),
            jax.grad(lambda s: crf.log_partition(s, *args).sum())(scores),
            crf.viterbi(scores, *args),
            jax.grad(lambda m: crf.nll(scores, label, MASK, m).sum())(move),
        )

    nll, marginals, best, slope = both(scores, move)
    want_slope = np.zeros((K, K))
    for b in range(B):
        found = paths(scores[b], move, MASK[b])
        steps = np.flatnonzero(MASK[b])
        own = tuple(label[b, steps].tolist())
        log_z = np.log(sum(np.exp(v) for v in found.values()))
        np.testing.assert_allclose(nll[b], log_z - found[own], atol=1e-5)
        want = np.zeros((T, K))
        for path, score in found.items():
            p = np.exp(score - log_z)
            want[steps, list(path)] += p
            for i, j in itertools.pairwise(path):
                want_slope[i, j] += p
        for i, j in itertools.pairwise(own):
            want_slope[i, j] -= 1
        np.testing.assert_allclose(marginals[b], want, atol=1e-5)
        top = max(found, key=found.get)
        np.testing.assert_array_equal(best[b, steps], top)
    np.testing.assert_allclose(slope, want_slope, atol=1e-5)


def test_without_transitions_it_is_cross_entropy():
    scores, _, label = problem(1)
    got = jax.jit(crf.nll)(scores, label, MASK, jnp.zeros((K, K)))
    log = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    own = np.take_along_axis(log, label[..., None], -1)[..., 0]
    np.testing.assert_allclose(got, -(own * MASK).sum(1), atol=1e-5)


def test_a_label_that_is_no_class_is_not_hidden():
    scores, move, label = problem(2)
    label[0, 1] = K
    got = jax.jit(crf.nll)(scores, label, MASK, move)
    assert not np.isfinite(got[0]) and np.isfinite(got[1:]).all()
