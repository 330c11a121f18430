"""Tokenizers of public models that are no byte-pair encoding of CLIP's kind: SigLIP's.

Rows are `ids EOT pad pad ...`, without a mark at the start.
"""

import dataclasses
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tokenizers

from mmjax import schema
from mmjax.data import text
from mmjax.errors import UserError

CLEANING = ("none", "canonical")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class PieceTokenizer(text.Tokenizer):
    """A `tokenizer.json` (of the library `tokenizers`) that pads to its context.

    clean: `canonical` is SigLIP's: lower case, no ASCII punctuation, single spaces
    (big_vision's canonicalize_text); `none` leaves all to the file.
    """

    def __init__(self, words: str, *, context: int, end: int, pad: int, clean: str):
        if clean not in CLEANING:
            raise UserError(f"tokenizer: clean {clean!r}: use {' or '.join(CLEANING)}")
        try:
            self._engine = tokenizers.Tokenizer.from_str(words)
        except Exception as e:  # the library raises nothing narrower
            raise UserError(f"tokenizer: not a tokenizer.json ({e})") from e
        self._engine.no_padding()
        self._engine.no_truncation()
        size = self._engine.get_vocab_size(with_added_tokens=True)
        super().__init__("pieces", vocab_size=size, context=context, lower=True)
        for name, number in (("end", end), ("pad", pad)):
            if not 0 <= number < size:
                raise UserError(f"tokenizer: {name} is {number}, of {size} ids")
        self._words, self._clean = words, clean
        self.sot, self.eot, self.pad = -1, end, pad  # there is no mark at the start

    def _cleaned(self, caption: str) -> str:
        if self._clean == "none":
            return caption
        return " ".join(caption.lower().translate(_PUNCTUATION).split())

    def _ids(self, caption: str) -> list[int]:
        cleaned = self._cleaned(caption)
        return self._engine.encode(cleaned, add_special_tokens=False).ids

    def _spell(self, ids: Sequence[int]) -> bytes:
        return self._engine.decode(list(ids)).encode("utf-8")

    def encode(
        self,
        texts: Sequence[str],
        *,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `text.Tokenizer.encode`; a text that is too long keeps its EOT."""
        if isinstance(texts, str):
            raise UserError(f"tokenizer: encode takes a list, write [{texts!r}]")
        if dropout:
            raise UserError("tokenizer: kind 'pieces' has no merges: use dropout 0")
        tokens_bl = np.full((len(texts), self.context), self.pad, np.int32)
        lengths_b1 = np.empty((len(texts), 1), np.int32)
        for row, caption in enumerate(texts):
            ids = self._ids(caption)[: self.context - 1]
            lengths_b1[row] = size = len(ids) + 1
            tokens_bl[row, :size] = (*ids, self.eot)
        return tokens_bl, np.arange(self.context) < lengths_b1

    def count(self, caption: str) -> int:
        """Tokens of a text with its EOT, before any is cut off."""
        return len(self._ids(caption)) + 1

    @property
    def words(self) -> str:
        """The `tokenizer.json`."""
        return self._words

    def to_json(self) -> str:
        values = {"format": text.FORMAT, "kind": self.kind, "context": self.context}
        values |= {"end": self.eot, "pad": self.pad, "clean": self._clean}
        return json.dumps(values | {"words": self._words}, separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class _Saved:
    format: Literal["mmjax-tokenizer-1"]
    kind: Literal["pieces"]
    context: int
    end: int
    pad: int
    clean: str
    words: str


def from_values(values: Mapping[str, Any]) -> PieceTokenizer:
    """The tokenizer whose `to_json` gave these values; UserError where none did."""
    saved = schema.from_mapping(_Saved, values, "tokenizer JSON")
    fields = {"context": saved.context, "end": saved.end, "pad": saved.pad}
    return PieceTokenizer(saved.words, clean=saved.clean, **fields)
