"""A text as token ids. Several fields of this kind have a tokenizer each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmjax.data import tokenizers
from mmjax.data.fields import base
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.tokenizers import bytes, merges
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (L,) and NAME_mask bool (L,), False at padding.

    Of a record with several texts (captions) one is drawn in training, and the first
    taken in evaluation. `encoder` is the tokenizer, once the field is open.

    tokenizer: `clip` (its vocabulary file at `path`), `bpe` (the JSON file at `path`,
      or without `path` trained on the records' texts), `bytes`, or `pieces` (the
      tokenizer of imported weights, at `path`).
    path: the tokenizer's file.
    vocab_size: of a BPE the most ids it may have, 8192; elsewhere fixed.
    context: tokens in a row, marks included; 77.
    lower: whether texts are lower-cased; True.
    dropout: the chance that a merge is left out, 0 to 1, of training texts alone
      (Provilkov et al. 2020; 0.1 in DALL-E).
    """

    VALUE: ClassVar[str] = "text"
    encoder: ClassVar[tokenizers.Tokenizer | None] = None

    tokenizer: str = "bytes"
    path: str | None = None
    vocab_size: int | None = None
    context: int | None = None
    lower: bool | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.config  # says what is wrong with it

    @property
    def config(self) -> tokenizers.TokenizerConfig:
        """What the tokenizer is built from."""
        keys = ("path", "vocab_size", "context", "lower", "dropout")
        values = {key: getattr(self, key) for key in keys}
        return tokenizers.TokenizerConfig(kind=self.tokenizer, **values)

    def shapes(self, name: str) -> base.Shapes:
        length = self.encoder.context if self.encoder else self.context
        length = length or tokenizers.base.CONTEXT
        return {name: ((length,), "int32"), f"{name}_mask": ((length,), "bool")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        texts = self.texts(name, record)
        text = texts[int(rng.integers(len(texts)))] if view.train else texts[0]
        if view.train and self.dropout:  # drawn by the row's own generator
            return self.encoder.encode([text], dropout=self.dropout, rng=rng)
        return text

    def texts(self, name: str, record: Mapping[str, Any]) -> list[str]:
        """The record's texts, a value that is one text among them."""
        value = self.value(name, record)
        texts = list(value) if isinstance(value, list | tuple) else [value]
        for text in texts:
            if not isinstance(text, str):
                kind = type(text).__name__
                raise base.misfit(name, record, f"expected text, got {kind} {text!r}")
        return texts

    def blank(self, name: str) -> str:
        return ""

    def collate(self, name: str, rows: Sequence[Any]) -> base.Arrays:
        if all(isinstance(row, str) for row in rows):
            tokens, mask = self.encoder.encode(list(rows))
        else:
            pairs = [
                self.encoder.encode([r]) if isinstance(r, str) else r for r in rows
            ]
            tokens, mask = map(np.concatenate, zip(*pairs, strict=True))
        return {name: tokens, f"{name}_mask": mask}

    def facts(self, name: str) -> dict[str, Any]:
        """`vocab_size`: ids there are, or may be while the field is not open."""
        known = {"clip": merges.CLIP_VOCAB, "bytes": bytes.ByteTokenizer.VOCAB}
        size = self.vocab_size or known.get(self.tokenizer)
        size = self.encoder.vocab_size if self.encoder else size
        return {} if size is None else {"vocab_size": size}

    def open(self, name: str, source: Source) -> Field:
        own = self.reads(name) == "text"
        texts = source.texts() if own else self._all(name, source)
        try:
            return self.bound(encoder=tokenizers.build(self.config, texts=texts))
        except UserError as error:
            raise UserError(f"{base.place(name)}: {error}") from error

    def _all(self, name: str, source: Source) -> Iterator[str]:
        for i in range(len(source)):
            try:
                record = source[i]
                if self.value(name, record) is not None:
                    yield from self.texts(name, record)
            except BrokenRecord:
                continue  # the pipeline reports it

    def saved(self) -> str:
        return self.encoder.to_json()

    def restored(self, saved: str) -> Field:
        return self.bound(encoder=tokenizers.from_json(saved))
