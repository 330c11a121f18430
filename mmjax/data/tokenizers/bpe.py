"""Byte-pair encodings: CLIP's, and those trained on a run's own captions."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from mmjax.data.tokenizers import merges as merges_lib
from mmjax.data.tokenizers.base import CONTEXT, Tokenizer, clean


class BpeTokenizer(Tokenizer):
    """Byte-pair encoding with the given merges; see `mmjax.data.tokenizers.merges`.

    Words of ASCII captions are looked up in a bounded table, 3 to 6 times faster than
    calling the encoder. No threads are used, so a fork or a spawn is safe at any time.
    """

    _KEPT, _LONGEST = 1 << 16, 32  # words in the table, characters in a word

    def __init__(
        self, kind: str, merges: merges_lib.Merges, *, context: int, lower: bool
    ):
        self._symbols, self._merges = merges_lib.vocabulary(merges), tuple(merges)
        size = len(self._symbols) + merges_lib.SPECIALS
        super().__init__(kind, vocab_size=size, context=context, lower=lower)
        self._engine = merges_lib.engine(merges)
        self._words: dict[str, list[int]] = {}

    def __reduce__(self):  # the engine and the table are made again
        options = {"context": self.context, "lower": self.lower}
        return functools.partial(type(self), self.kind, self.merges, **options), ()

    @property
    def merges(self) -> merges_lib.Merges:
        return self._merges

    def _ids(self, text: str) -> list[int]:
        if not text.isascii():
            return self._engine.encode(text).ids
        ids: list[int] = []
        for word in merges_lib.ASCII_WORDS.findall(text):
            ids += self._words.get(word) or self._word(word)
        return ids

    def _word(self, word: str) -> list[int]:
        ids = self._engine.encode(word).ids
        if len(word) <= self._LONGEST and len(self._words) < self._KEPT:
            self._words[word] = ids
        return ids

    @functools.cached_property
    def _dropout(self) -> merges_lib.Dropout:
        return merges_lib.Dropout(self._merges)

    def _dropped(
        self, text: str, dropout: float, rng: np.random.Generator
    ) -> list[int]:
        return self._dropout.ids(merges_lib.words(text, self._engine), dropout, rng)

    @functools.cached_property
    def _spelled(self) -> list[bytes]:
        return [merges_lib.spell(symbol) for symbol in self._symbols]

    def _spell(self, ids: Sequence[int]) -> bytes:
        return b"".join(self._spelled[i] for i in ids)


def train_bpe(
    texts: Iterable[str], vocab_size: int, context: int = CONTEXT, lower: bool = True
) -> BpeTokenizer:
    """A BPE of at most `vocab_size` ids learned from captions; same texts, same ids.

    Few captions give fewer ids: size a model by the result's `vocab_size`.
    """
    cleaned = (clean(text, lower) for text in texts)
    merges = merges_lib.train(cleaned, vocab_size=vocab_size)
    return BpeTokenizer("bpe", merges, context=context, lower=lower)
