"""Captions from those of near images: the nearest's, the most agreed on, or phrases.

Legend: q queries, n examples, d features, k near ones, c captions, g n-grams.
"""

import collections
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import sparse

Words = Sequence[str]
# What a phrase may begin with: the closed class of English prepositions, and "while".
OPENERS = frozenset(
    "in on at with through over of into near by along across under down up from around "
    "behind beside between during for off onto outside inside out past toward towards "
    "above against next while after as to".split()
)
VERBS = frozenset(("is", "are"))  # what a phrase has that is a sentence's end
PHRASES = 2  # after the first, at most
_SEAM = 0.01  # of a seam's log-probability beside a cosine


class Examples:
    """Images with captions, near to others by the cosine of their centred features."""

    def __init__(self, features_nd: np.ndarray, captions: Sequence[Sequence[Words]]):
        self.centre_d = features_nd.mean(0)
        self.rows_nd = _unit(features_nd - self.centre_d)
        self.captions = list(itertools.chain(*captions))
        self.starts = np.cumsum([0, *map(len, captions)])
        seen = collections.Counter(
            g for caption in self.captions for g in set(_grams(caption))
        )
        self.number = {g: i for i, g in enumerate(seen)}
        self.idf_g = np.log(len(self.captions) / np.array(list(seen.values())))
        self.vectors_cg = self._vectors(self.captions)
        self.seams = collections.Counter(
            pair for caption in self.captions for pair in itertools.pairwise(caption)
        )
        self.words = collections.Counter(itertools.chain(*self.captions))

    def _vectors(self, sentences: Sequence[Words]) -> sparse.csr_array:
        """Unit tf-idf rows of words and pairs of words."""
        listed = [
            [self.number[g] for g in _grams(s) if g in self.number] for s in sentences
        ]
        rows = np.repeat(np.arange(len(listed)), [len(gs) for gs in listed])
        columns = np.fromiter(itertools.chain(*listed), int, len(rows))
        shape = len(listed), len(self.number)
        counts = sparse.csr_array((self.idf_g[columns], (rows, columns)), shape)
        norm = np.maximum(np.sqrt(counts.multiply(counts).sum(1)), 1e-12)
        return sparse.csr_array(counts.multiply(1 / norm[:, None]))

    def near(self, query_qd: np.ndarray, k: int) -> np.ndarray:
        """The nearest k examples of each query, the nearest first, (q, k)."""
        cosine_qn = _unit(query_qd - self.centre_d) @ self.rows_nd.T
        return np.argsort(-cosine_qn, axis=1, kind="stable")[:, :k]

    def nearest(self, query_qd: np.ndarray, k: int) -> list[str]:
        """The first caption of the nearest example."""
        first = self.starts[self.near(query_qd, k)[:, 0]]
        return [" ".join(self.captions[i]) for i in first]

    def consensus(self, query_qd: np.ndarray, k: int) -> list[str]:
        """Of the captions of k examples, the one nearest to the mean of all."""
        said = []
        for pool_c in self._pools(query_qd, k):
            vectors_cg = self.vectors_cg[pool_c]
            agreed_c = vectors_cg @ vectors_cg.sum(0)
            said.append(" ".join(self.captions[pool_c[agreed_c.argmax()]]))
        return said

    def phrases(self, query_qd: np.ndarray, k: int) -> list[str]:
        """A first phrase and up to two more, of the captions of k examples.

        One after the other the phrase is added that brings the sentence nearest to the
        mean of all captions, seams between phrases being as probable as pairs of words
        are in all examples; none where every one would lead away.
        """
        return [" ".join(self._put_together(pool)) for pool in self._pools(query_qd, k)]

    def _pools(self, query_qd: np.ndarray, k: int) -> Iterator[np.ndarray]:
        """The captions of each query's examples, by number."""
        for near_k in self.near(query_qd, k):
            spans = (range(self.starts[n], self.starts[n + 1]) for n in near_k)
            yield np.fromiter(itertools.chain(*spans), int)

    def _put_together(self, pool_c: np.ndarray) -> list[str]:
        mean_g = self.vectors_cg[pool_c].mean(0)
        heads: dict[tuple, None] = {}
        others: dict[tuple, None] = {}
        for number in pool_c:
            first, *rest = cut(self.captions[number])
            heads[first] = None
            others.update((p, None) for p in rest if not VERBS & set(p))
        said, best = self._best(mean_g, [()], heads)
        for _ in range(PHRASES):
            more, score = self._best(mean_g, [said], others)
            if score <= best:
                break
            said, best = more, score
        return list(said)

    def _best(
        self, mean_g: np.ndarray, before: list[tuple], phrases: Iterable[tuple]
    ) -> tuple[tuple, float]:
        """The best sentence of `before` and a phrase, and its score."""
        sentences = [start + phrase for start in before for phrase in phrases]
        if not sentences:
            return (), -math.inf
        scores = self._vectors(sentences) @ mean_g / max(np.linalg.norm(mean_g), 1e-12)
        at = len(before[0])
        for i, sentence in enumerate(sentences):
            scores[i] += _SEAM * self._seam(sentence, at)
            again = set(sentence[:at]) & set(sentence[at:]) - OPENERS
            if any(len(word) > 2 for word in again):  # what is said is not said twice
                scores[i] = -math.inf
        return sentences[int(scores.argmax())], float(scores.max())

    def _seam(self, sentence: tuple, at: int) -> float:
        """Log-probability of the word at a seam after the one before it."""
        if not at:
            return 0.0
        pair = sentence[at - 1], sentence[at]
        return math.log((self.seams[pair] + 0.1) / (self.words[pair[0]] + 1.0))


def cut(caption: Words) -> list[tuple[str, ...]]:
    """A caption's phrases: each but the first begins with a preposition."""
    phrases: list[list[str]] = [[]]
    for word in caption:
        if word in OPENERS and phrases[-1] and phrases[-1][-1] not in OPENERS:
            phrases.append([])
        phrases[-1].append(word)
    return [tuple(phrase) for phrase in phrases]


def _grams(sentence: Words) -> list[tuple[str, ...]]:
    return [(w,) for w in sentence] + list(itertools.pairwise(sentence))


def _unit(rows_nd: np.ndarray) -> np.ndarray:
    return rows_nd / np.maximum(np.linalg.norm(rows_nd, axis=1, keepdims=True), 1e-12)
