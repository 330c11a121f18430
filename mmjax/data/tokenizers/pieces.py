"""SigLIP's tokenizer and its kin: any `tokenizer.json` of the library `tokenizers`.

A row is the file's own encoding of a text, its marks included, and padding.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tokenizers
from tokenizers import normalizers, processors

from mmjax import schema
from mmjax.data.tokenizers import base
from mmjax.errors import UserError

# Python's string.punctuation, as SigLIP's canonical text is without it.
_PUNCTUATION = r"[!-/:-@\[-`{-~]"


class PieceTokenizer(base.Tokenizer):
    """A `tokenizer.json` (of the library `tokenizers`) that pads to its context.

    words: the file's text, which says what marks a text gets and how it is cleaned.
    end: the id that ends a text. pad: the id of padding.
    """

    def __init__(self, words: str, *, context: int, end: int, pad: int):
        self._engine = opened(words)
        size = self._engine.get_vocab_size(with_added_tokens=True)
        super().__init__("pieces", vocab_size=size, context=context, lower=False)
        for name, number in (("end", end), ("pad", pad)):
            if not 0 <= number < size:
                raise UserError(f"tokenizer: {name} is {number}, of {size} ids")
        self.words = words
        self.sot, self.eot, self.pad = -1, end, pad  # no mark of ours at the start

    def __reduce__(self):  # the engine is made again
        options = {"context": self.context, "end": self.eot, "pad": self.pad}
        return functools.partial(type(self), self.words, **options), ()

    def _ids(self, caption: str) -> list[int]:
        return self._engine.encode(caption).ids

    def _spell(self, ids: Sequence[int]) -> bytes:
        return self._engine.decode(list(ids)).encode("utf-8")

    def _row(self, text: str, dropout: float, rng: Any) -> Sequence[int]:
        """The ids; a text that is too long keeps its end."""
        if dropout:
            raise UserError(base.NO_MERGES.format(dropout=dropout, kind=self.kind))
        ids = self._ids(text)
        if len(ids) <= self.context:
            return ids
        tail = ids[-1:] if ids[-1] == self.eot else []
        return ids[: self.context - len(tail)] + tail

    def count(self, text: str) -> int:
        """Tokens of a text with its marks, before any is cut off."""
        return len(self._ids(text))

    def to_json(self) -> str:
        values = {"format": base.FORMAT, "kind": self.kind, "context": self.context}
        values |= {"end": self.eot, "pad": self.pad, "words": self.words}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def opened(words: str) -> tokenizers.Tokenizer:
    """The library's tokenizer of a file's text, without padding and truncation."""
    try:
        engine = tokenizers.Tokenizer.from_str(words)
    except Exception as e:  # the library raises nothing narrower
        raise UserError(f"tokenizer: not a tokenizer.json ({e})") from e
    engine.no_padding()
    engine.no_truncation()
    return engine


def completed(words: str, *, end: str, clean: str = "") -> str:
    """A file's text in which all is said that a library does in code.

    A mark `end` is added to texts where the file adds none. clean: `canonical` is
    SigLIP's cleaning before all else, lower case without ASCII punctuation;
    `canonical_` is open_clip's form of it, where `_` becomes a space.
    """
    engine = opened(words)
    if engine.post_processor is None:
        engine.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, engine.token_to_id(end))]
        )
    if clean:
        steps = [
            normalizers.Replace("_", " " if clean == "canonical_" else ""),
            normalizers.Lowercase(),
            normalizers.Replace(tokenizers.Regex(_PUNCTUATION), ""),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
        own = [] if engine.normalizer is None else [engine.normalizer]
        engine.normalizer = normalizers.Sequence([*steps, *own])
    return engine.to_str()


@dataclasses.dataclass(frozen=True)
class _Saved:
    format: Literal["mmjax-tokenizer-1"]
    kind: Literal["pieces"]
    context: int
    end: int
    pad: int
    words: str


def from_values(values: Mapping[str, Any]) -> PieceTokenizer:
    """The tokenizer whose `to_json` gave these values; UserError where none did."""
    saved = schema.from_mapping(_Saved, values, "tokenizer JSON")
    fields = {"context": saved.context, "end": saved.end, "pad": saved.pad}
    return PieceTokenizer(saved.words, **fields)
