"""What every tokenizer has: its marks, its cleaning, its form in a run."""

import abc
import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any

import ftfy
import numpy as np

from mmjax.data.tokenizers import merges as merges_lib
from mmjax.errors import UserError

FORMAT = "mmjax-tokenizer-1"
CONTEXT = 77  # CLIP's; 76 in the paper, which does not count one of the two marks
NO_MERGES = (
    "tokenizer: dropout {dropout} leaves out merges, and kind {kind!r} has none: use "
    "kind 'bpe' or 'clip', or dropout 0"
)


def clean(text: str, lower: bool) -> str:
    """CLIP's cleaning: mend mojibake, unescape HTML twice, single spaces, lower case.

    Printable ASCII without `&` skips the first two, which leave it as it is; they cost
    five times the rest of the encoding.
    """
    if "&" in text or not (text.isascii() and text.isprintable()):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    text = " ".join(text.split())
    return text.lower() if lower else text


class Tokenizer(abc.ABC):
    """Captions to rows `SOT ids EOT 0 0 ...` and back.

    The specials are the last two ids, so a model finds the end of a text at the
    largest id of its row, as CLIP does. `pad` is 0: with BPE that is also the symbol
    `!`, as in CLIP, and only the mask tells them apart; bytes keep 0 free.
    """

    pad = 0

    def __init__(self, kind: str, *, vocab_size: int, context: int, lower: bool):
        if context < 3:
            raise UserError(
                f"tokenizer: context {context} has no room for text between the two "
                "marks: use 3 or more"
            )
        self.kind, self.context, self.lower = kind, context, lower
        self.vocab_size = vocab_size
        self.sot, self.eot = vocab_size - 2, vocab_size - 1

    @abc.abstractmethod
    def _ids(self, text: str) -> Sequence[int]:
        """Ids of one cleaned text, without the marks."""

    @abc.abstractmethod
    def _spell(self, ids: Sequence[int]) -> bytes:
        """UTF-8 of `ids`, all of them below `sot`."""

    def _dropped(
        self, text: str, dropout: float, rng: np.random.Generator
    ) -> Sequence[int]:
        """As `_ids`, each merge left out with chance `dropout`."""
        raise UserError(NO_MERGES.format(dropout=dropout, kind=self.kind))

    def _row(self, text: str, dropout: float, rng: Any) -> Sequence[int]:
        """Ids of one text with its marks, at most `context` of them."""
        cleaned = clean(text, self.lower)
        ids = self._dropped(cleaned, dropout, rng) if dropout else self._ids(cleaned)
        return (self.sot, *ids[: self.context - 2], self.eot)

    @property
    def merges(self) -> merges_lib.Merges:
        """The learned part of the vocabulary, in order; empty for bytes."""
        return ()

    def encode(
        self,
        texts: Sequence[str],
        *,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and the mask of what is not padding.

        Args:
          texts: B captions. An empty one gives SOT EOT: whether captions may be empty
            is for the data pipeline to say.
          dropout: chance that a merge is left out (`bpe.Dropout`); decided by `rng`.

        Returns:
          int32 (B, L) and bool (B, L); the marks count as real tokens. A text longer
          than L - 2 tokens loses its tail and keeps its EOT.

        Raises:
          UserError: one str instead of a list, an entry that is not a str, or dropout
            where there are no merges.
        """
        if isinstance(texts, str):
            raise UserError(f"tokenizer: encode takes a list, write [{texts!r}]")
        tokens_bl = np.full((len(texts), self.context), self.pad, np.int32)
        lengths_b1 = np.empty((len(texts), 1), np.int32)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                kind = type(text).__name__
                raise UserError(f"tokenizer: text {row} is {kind}, not str: {text!r}")
            ids = self._row(text, dropout, rng)
            lengths_b1[row] = len(ids)
            tokens_bl[row, : len(ids)] = ids
        return tokens_bl, np.arange(self.context) < lengths_b1

    def count(self, text: str) -> int:
        """Tokens of a text with its two marks, before any is cut off."""
        return len(self._ids(clean(text, self.lower))) + 2

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of one row up to its first EOT; SOT is left out.

        BPE puts one space after every word, as the original does: `it ' s .` for
        "it's.". Bytes that are no UTF-8 (a cut character) become U+FFFD.

        Raises:
          UserError: an id outside the vocabulary.
        """
        row = np.asarray(ids).reshape(-1).tolist()
        row = row[: row.index(self.eot)] if self.eot in row else row
        for i in row:
            if not 0 <= i < self.vocab_size:
                raise UserError(f"tokenizer: id {i} is outside 0..{self.eot}")
        inner = [i for i in row if i != self.sot]
        return self._spell(inner).decode("utf-8", errors="replace").strip()

    def to_json(self) -> str:
        """All that `from_json` needs; equal text exactly for equal tokenizers."""
        values = {"format": FORMAT, "kind": self.kind, "context": self.context}
        values |= {"lower": self.lower, "merges": [" ".join(m) for m in self.merges]}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))

    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]
