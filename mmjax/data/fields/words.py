"""A text as the mean of its words' vectors, which are learned from a corpus."""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from mmjax import schema
from mmjax.data import records, word_vectors
from mmjax.data.fields import base, text
from mmjax.data.records import Record, Source
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME float32 (width,), of length one; zeros where no word is known.

    Of a record with several texts one is drawn in training, and the first taken in
    evaluation. The vectors travel with the checkpoint; see mmjax.data.word_vectors.

    width: numbers of a vector.
    corpus: the source whose texts teach the vectors; empty is the training records'.
    span: words to either side that count as a word's contexts.
    least: how often a word must occur to have a vector.
    every: whether the record's texts are read as one.
    """

    texts = text.Field.texts
    VALUE: ClassVar[str] = "text"
    vectors: ClassVar[word_vectors.WordVectors | None] = None

    width: int = 128
    corpus: Any = ""
    span: int = 5
    least: int = 3
    every: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "width", "span", "least")

    def shapes(self, name: str) -> base.Shapes:
        return {name: ((self.width,), "float32")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        texts = self.texts(name, record)
        if self.every:
            texts = [" ".join(texts)]
        drawn = int(rng.integers(len(texts))) if view.train else 0
        return {name: self.vectors.embed(texts[drawn])}

    def open(self, name: str, source: Source) -> Self:
        def listed(i: int) -> list[str]:
            record = source[i]
            return self.texts(name, record) if self.value(name, record) else []

        if self.corpus:
            from mmjax.data.sources import open_source  # it imports the fields' base

            texts = open_source(self.corpus).texts()
        elif self.reads(name) == "text":
            texts = source.texts()
        else:
            texts = records.texts(listed, len(source))
        options = {key: getattr(self, key) for key in ("width", "span", "least")}
        try:
            return self.bound(vectors=word_vectors.fit(texts, **options))
        except UserError as error:
            raise UserError(f"{base.place(name)}: {error}") from None

    def saved(self) -> dict[str, Any]:
        fitted = self.vectors
        packed = (
            x.astype("<f4").tobytes() for x in (fitted.shares_v, fitted.vectors_vd)
        )
        shares, vectors = (base64.b64encode(x).decode() for x in packed)
        return {"words": list(fitted.words), "shares": shares, "vectors": vectors}

    def restored(self, saved: Mapping[str, Any]) -> Self:
        shares_v, flat = (
            np.frombuffer(base64.b64decode(saved[key]), "<f4")
            for key in ("shares", "vectors")
        )
        vectors_vd = flat.reshape(len(shares_v), -1)
        fitted = word_vectors.WordVectors(tuple(saved["words"]), vectors_vd, shares_v)
        return self.bound(vectors=fitted)
