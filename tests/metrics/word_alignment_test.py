"""IBM model 1 and the HMM against enumeration, and on words with known symbols."""

import itertools

import numpy as np
import pytest

from mmjax.metrics import word_alignment


def enumerated(table, jumps, words, symbols):
    """(posterior (k, n), log likelihood) by all paths."""
    k, n = len(words), len(symbols)
    posterior, total = np.zeros((k, n)), 0.0
    for path in itertools.product(range(n), repeat=k):
        p = 1 / n
        for i, at in enumerate(path):
            p *= table[symbols[at], words[i]]
            if i and jumps is None:
                p /= n
            elif i:
                row = [jumps[j - path[i - 1] + len(jumps) // 2] for j in range(n)]
                p *= row[at] / sum(row)
        posterior[np.arange(k), path] += p
        total += p
    return posterior / total, np.log(total)


@pytest.mark.parametrize("chain", [False, True])
def test_posteriors_are_those_of_enumeration(chain):
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(5), size=4)
    jumps = rng.dirichlet(np.ones(5)) if chain else None
    words, symbols = np.array([1, 4, 0, 1]), np.array([3, 0, 2])
    got = word_alignment._expected(table, jumps, words, symbols)
    want, likelihood = enumerated(table, jumps, words, symbols)
    np.testing.assert_allclose(got[0], want, atol=1e-10)
    assert got[2] == pytest.approx(likelihood)
    if chain:
        assert got[1].sum() == pytest.approx(len(words) - 1)


@pytest.mark.parametrize("chain", [False, True])
def test_words_find_their_symbols(chain):
    rng = np.random.default_rng(1)
    symbols = [rng.permutation(6)[:3] for _ in range(60)]
    order = [np.arange(3) if chain else rng.permutation(3) for _ in symbols]
    words = [5 - s[o] for s, o in zip(symbols, order, strict=True)]
    fitted = word_alignment.fit(words, symbols, chain=chain)
    rising = np.diff(fitted.log_likelihoods)
    assert (rising > -1e-6).all() and rising[0] > 1
    for w, s, o in zip(words, symbols, order, strict=True):
        np.testing.assert_array_equal(fitted.posterior(w, s).argmax(1), o)
