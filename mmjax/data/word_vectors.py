"""Word vectors of a corpus: singular vectors of positive mutual information.

Levy and Goldberg 2014: skip-gram factorises a shifted matrix of mutual information, and
its singular vectors serve a small corpus at once, where skip-gram needs many epochs.

Legend: v words, d width.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable

import numpy as np
from scipy import sparse

from mmjax.errors import UserError

_WORD = re.compile(r"[^\W\d_]+")
_SMOOTH = 0.75  # power of a context's frequency (Levy et al. 2015, section 3.1)
_COMMON = 1e-3  # frequency at which a word has half its weight (Arora et al. 2017)


@dataclasses.dataclass(frozen=True)
class WordVectors:
    """Rows of `vectors_vd` (float32) are those of `words`, the commonest first.

    shares_v: float32, of the corpus' words.
    """

    words: tuple[str, ...]
    vectors_vd: np.ndarray
    shares_v: np.ndarray

    def __post_init__(self) -> None:
        place = {word: i for i, word in enumerate(self.words)}
        object.__setattr__(self, "_place", place)

    def embed(self, text: str) -> np.ndarray:
        """The text's unit vector, float32 (d,); zeros where no word is known.

        The mean of its words' vectors, each by a / (a + its frequency), a = 1e-3.
        """
        rows = [self._place[word] for word in words(text) if word in self._place]
        weight_n = _COMMON / (_COMMON + self.shares_v[rows])
        sum_d = weight_n @ self.vectors_vd[rows]
        return (sum_d / max(np.linalg.norm(sum_d), 1e-12)).astype(np.float32)


def words(text: str) -> list[str]:
    """Its runs of letters, in lower case."""
    return _WORD.findall(text.lower())


def fit(
    texts: Iterable[str], *, width: int, span: int = 5, least: int = 3
) -> WordVectors:
    """Vectors of the words that occur `least` times or more; equal texts, equal bits.

    Args:
      span: words to either side that are a word's contexts, within its text.

    Raises:
      UserError: no more words occur so often than `width`.
    """
    listed = [words(text) for text in texts]
    counts = collections.Counter(word for text in listed for word in text)
    known = sorted((-n, word) for word, n in counts.items() if n >= least)
    place = {word: i for i, (_, word) in enumerate(known)}
    if len(place) <= width:
        raise UserError(
            f"{len(place)} words occur {least} times or more, and width is {width}: "
            f"use a width below {max(len(place), 2)}, more text, or a smaller least"
        )
    ids = [np.array([place[w] for w in text if w in place], int) for text in listed]
    met_vv = _information(_met(ids, span, len(place)))
    start = np.random.default_rng(0).normal(size=len(place))
    left_vd, value_d, _ = sparse.linalg.svds(met_vv, width, v0=start)
    left_vd, value_d = left_vd[:, ::-1], value_d[::-1]
    largest = left_vd[np.abs(left_vd).argmax(0), np.arange(width)]
    vectors_vd = left_vd * np.sqrt(value_d) * np.sign(largest)
    norm_v1 = np.linalg.norm(vectors_vd, axis=1, keepdims=True)
    shares_v = np.array([-n for n, _ in known]) / sum(counts.values())
    unit_vd = vectors_vd / np.maximum(norm_v1, 1e-12)
    return WordVectors(
        tuple(place), unit_vd.astype(np.float32), shares_v.astype(np.float32)
    )


def _met(ids: list[np.ndarray], span: int, count: int) -> sparse.csr_array:
    """How often one word stands within `span` words of another, (v, v)."""
    pairs = [
        np.stack([id_n[:-apart], id_n[apart:]])
        for id_n in ids
        for apart in range(1, min(span, len(id_n) - 1) + 1)
    ]
    first, second = np.concatenate([np.zeros((2, 0), int), *pairs], axis=1)
    once = np.ones(len(first))
    met_vv = sparse.csr_array((once, (first, second)), (count, count))
    return met_vv + met_vv.T


def _information(met_vv: sparse.csr_array) -> sparse.csr_array:
    """max(0, log of p(word, context) / (p(word) p(context))), contexts smoothed."""
    met_vv = met_vv.tocoo()
    word_v, context_v = met_vv.sum(1), met_vv.sum(0) ** _SMOOTH
    expected_n = word_v[met_vv.row] * (context_v / context_v.sum())[met_vv.col]
    information_n = np.maximum(np.log(met_vv.data / expected_n), 0)
    places = met_vv.row, met_vv.col
    return sparse.csr_array((information_n, places), met_vv.shape)
