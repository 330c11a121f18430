"""A text as token ids. Several fields of this kind have a tokenizer each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mmjax import schema
from mmjax.data import records, tokenizers
from mmjax.data.fields import base
from mmjax.data.records import Record, Source
from mmjax.data.sources import views
from mmjax.data.tokenizers import bytes, merges
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (L,) and NAME_mask bool (L,), False at padding.

    A tokenizer that is trained reads the captions of a million records at most, the
    same ones in every process (`views.sampled_texts`).

    Of a record with several texts (captions) one is drawn in training, and the first
    taken in evaluation. `encoder` is the tokenizer, once the field is open.

    tokenizer: `clip` (its vocabulary file at `path`), `bpe` (the JSON file at `path`,
      or without `path` trained on the records' texts), `bytes`, `pieces` (the
      tokenizer of imported weights, at `path`), or `words` (whole words, those of the
      records' texts without a `path`).
    path: the tokenizer's file, or the workdir of a run, whose tokenizer it is.
    vocab_size: the most ids, of a BPE 8192, of words all of `min_count`; elsewhere
      fixed.
    min_count: of words, how often one must occur in the texts; 5.
    context: tokens in a row, marks included; 77.
    lower: whether texts are lower-cased; True.
    dropout: the chance that a merge is left out, 0 to 1, of training texts alone
      (Provilkov et al. 2020; 0.1 in DALL-E).
    """

    VALUE: ClassVar[str] = "text"
    encoder: ClassVar[tokenizers.Tokenizer | None] = None

    tokenizer: Literal["clip", "bpe", "bytes", "pieces", "words"] = "bytes"
    path: str | None = None
    vocab_size: int | None = None
    context: int | None = None
    lower: bool | None = None
    min_count: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout <= 1:
            raise UserError(f"dropout {self.dropout}: use 0 to 1")
        if self.min_count is not None:
            schema.at_least(1, self, "min_count")
            if self.tokenizer != "words":
                raise UserError(
                    f"min_count is {self.min_count}, and tokenizer "
                    f"{self.tokenizer!r}: it is of words, leave it out"
                )
        if self.dropout and self.tokenizer not in ("bpe", "clip"):
            values = {"dropout": self.dropout, "kind": self.tokenizer}
            raise UserError(tokenizers.base.NO_MERGES.format(**values))

    def shapes(self, name: str) -> base.Shapes:
        length = self.encoder.context if self.encoder else self.context
        return base.series(name, (length or tokenizers.base.CONTEXT,), "int32")

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
                reason = f"expected text, got {type(text).__name__} {text!r}"
                raise base.misfit(name, record, reason)
        return texts

    def blank(self, name: str) -> str:
        return ""

    def collate(self, name: str, rows: Sequence[Any]) -> base.Arrays:
        encode = self.encoder.encode
        if all(isinstance(row, str) for row in rows):
            tokens, mask = encode(list(rows))
        else:
            pairs = [encode([r]) if isinstance(r, str) else r for r in rows]
            tokens, mask = map(np.concatenate, zip(*pairs, strict=True))
        return {name: tokens, f"{name}_mask": mask}

    def facts(self, name: str) -> dict[str, Any]:
        """`vocab_size`: ids there are, or may be while the field is not open."""
        known = {"clip": merges.CLIP_VOCAB, "bytes": bytes.ByteTokenizer.VOCAB}
        size = self.vocab_size or known.get(self.tokenizer)
        size = self.encoder.vocab_size if self.encoder else size
        return {"vocab_size": size} if size else {}

    def open(self, name: str, source: Source) -> Self:
        def listed(i: int) -> list[str]:
            record = source[i]
            return self.texts(name, record) if self.value(name, record) else []

        keys = "path", "vocab_size", "context", "lower", "min_count"
        spec = {"kind": self.tokenizer, **{key: getattr(self, key) for key in keys}}
        own = self.reads(name) == "text"
        if own:
            texts = views.sampled_texts(source)
        else:
            texts = records.texts(listed, len(source))
        try:
            return self.bound(encoder=tokenizers.build(spec, texts=texts))
        except UserError as error:
            raise UserError(f"{base.place(name)}: {error}") from error

    def saved(self) -> str:
        return self.encoder.to_json()

    def restored(self, saved: str) -> Self:
        return self.bound(encoder=tokenizers.from_json(saved))
