"""A vocabulary of whole words, as captioners have it: those seen often enough."""

import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mmjax import schema
from mmjax.data.tokenizers import base
from mmjax.errors import UserError

UNKNOWN = "<unk>"
MIN_COUNT = 5  # Vinyals et al. 2015, section 4.3.1
_WORD = re.compile(r"\w+(?:[-.]\w+)*|'\w+")


class WordTokenizer(base.Tokenizer):
    """Id 0 pads, 1 is any word that the vocabulary lacks, 2 and on are its words.

    Punctuation is left out and `man's` is two words, `man` and `'s`, as the metrics of
    captions read texts.
    """

    unknown = 1

    def __init__(self, words: Sequence[str], *, context: int, lower: bool):
        self.words = tuple(words)
        self._number = {word: i for i, word in enumerate(self.words, 2)}
        if len(self._number) < len(self.words):
            raise UserError("tokenizer: a word is twice in the vocabulary: mend it")
        size = len(self.words) + 4
        super().__init__("words", vocab_size=size, context=context, lower=lower)

    def _ids(self, text: str) -> list[int]:
        return [self._number.get(word, self.unknown) for word in split(text)]

    def _spell(self, ids: Sequence[int]) -> bytes:
        words = (UNKNOWN if i == self.unknown else self.words[i - 2] for i in ids if i)
        return " ".join(words).encode()

    def to_json(self) -> str:
        """See the base."""
        values = {"format": base.FORMAT, "kind": self.kind, "context": self.context}
        values |= {"lower": self.lower, "words": list(self.words)}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def split(text: str) -> list[str]:
    """The words of a cleaned text."""
    return _WORD.findall(text)


def train_words(
    texts: Iterable[str],
    *,
    min_count: int,
    vocab_size: int | None,
    context: int,
    lower: bool,
) -> WordTokenizer:
    """The words that occur `min_count` times or more, the most frequent first.

    vocab_size: the most ids there may be, four of them marks.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(split(base.clean(text, lower)))
    often = [(-n, word) for word, n in counts.items() if n >= min_count]
    if not often:
        most = max(counts.values(), default=0)
        raise UserError(
            f"tokenizer: min_count is {min_count}, and the most frequent word occurs "
            f"{most} times: use {max(most, 1)} or less"
        )
    words = [word for _, word in sorted(often)]
    most = None if vocab_size is None else max(vocab_size - 4, 1)
    return WordTokenizer(words[:most], context=context, lower=lower)


@dataclasses.dataclass(frozen=True)
class _Saved:
    format: Literal["mmjax-tokenizer-1"]
    kind: Literal["words"]
    context: int
    lower: bool
    words: tuple[str, ...]


def from_values(values: Mapping[str, Any]) -> WordTokenizer:
    """The tokenizer whose `to_json` gave these values; UserError where none did."""
    saved = schema.from_mapping(_Saved, values, "tokenizer JSON")
    return WordTokenizer(saved.words, context=saved.context, lower=saved.lower)
