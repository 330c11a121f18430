"""Which of several symbols each word stands for, by EM: IBM model 1, and an HMM.

The graphical-model form of alignment (Brown et al. 1993; Vogel et al. 1996): a word is
drawn from the table of a symbol; in the HMM the symbols of neighbouring words form a
chain whose jumps are learned as well.

    fitted = fit(words, symbols, chain=True)
    fitted.posterior(words[0], symbols[0])  # (words, symbols), rows add up to 1

Legend: k words of a sentence, n symbols of its image, w v distinct of each.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

Ids = Sequence[np.ndarray]  # of each sentence or image, integers from 0
_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True)
class Fitted:
    """table: p(word | symbol), (v, w). jumps: p(j - i) but for a factor, (2 n - 1,), or
    None without a chain. log_likelihoods: of the pairs, before each step of EM."""

    table: np.ndarray
    jumps: np.ndarray | None
    log_likelihoods: tuple[float, ...]

    def posterior(self, words_k: np.ndarray, symbols_n: np.ndarray) -> np.ndarray:
        """p(the symbol of word k is n | sentence, image), (k, n)."""
        return _expected(self.table, self.jumps, words_k, symbols_n)[0]


def fit(words: Ids, symbols: Ids, *, chain: bool = False, steps: int = 20) -> Fitted:
    """EM from uniform tables; of pairs (sentence, image) that say the same.

    chain: whether the order of words and of symbols counts.
    """
    size = max(map(max, symbols)) + 1, max(map(max, words)) + 1
    table_vw = np.full(size, 1 / size[1])
    most = max(map(len, symbols))
    jumps = np.ones(2 * most - 1) if chain else None
    likelihoods = []
    for _ in range(steps):
        counts_vw, moved, total = np.zeros(size), np.zeros(2 * most - 1), 0.0
        for words_k, symbols_n in zip(words, symbols, strict=True):
            args = table_vw, jumps, words_k, symbols_n
            share_kn, pair_nn, log_likelihood = _expected(*args)
            np.add.at(counts_vw, (symbols_n, words_k[:, None]), share_kn)
            n = len(symbols_n)
            place = np.arange(n) - np.arange(n)[:, None] + most - 1
            np.add.at(moved, place, pair_nn)
            total += log_likelihood
        likelihoods.append(total)
        table_vw = counts_vw / np.maximum(counts_vw.sum(1, keepdims=True), _FLOOR)
        jumps = moved / max(moved.sum(), _FLOOR) + _FLOOR if chain else None
    return Fitted(table_vw, jumps, tuple(likelihoods))


def _expected(
    table_vw: np.ndarray,
    jumps: np.ndarray | None,
    words_k: np.ndarray,
    symbols_n: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """(posteriors (k, n), expected moves (n, n), log likelihood) of a pair."""
    fit_kn = np.maximum(table_vw[np.asarray(symbols_n)[None], words_k[:, None]], _FLOOR)
    k, n = fit_kn.shape
    if jumps is None:
        mean_k = fit_kn.mean(1)
        posterior_kn = fit_kn / fit_kn.sum(1, keepdims=True)
        return posterior_kn, np.zeros((n, n)), float(np.log(mean_k).sum())
    middle = len(jumps) // 2
    step_nn = jumps[np.arange(n) - np.arange(n)[:, None] + middle]
    step_nn = step_nn / step_nn.sum(1, keepdims=True)
    forward_kn, scale_k = np.empty((k, n)), np.empty(k)
    for i in range(k):
        before_n = forward_kn[i - 1] @ step_nn if i else np.full(n, 1 / n)
        forward_kn[i] = before_n * fit_kn[i]
        scale_k[i] = forward_kn[i].sum()
        forward_kn[i] /= scale_k[i]
    backward_kn, pair_nn = np.ones((k, n)), np.zeros((n, n))
    for i in range(k - 2, -1, -1):
        after_n = fit_kn[i + 1] * backward_kn[i + 1] / scale_k[i + 1]
        pair_nn += forward_kn[i][:, None] * step_nn * after_n
        backward_kn[i] = step_nn @ after_n
    return forward_kn * backward_kn, pair_nn, float(np.log(scale_k).sum())
