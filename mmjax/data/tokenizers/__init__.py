"""Captions to token ids: one door over CLIP's BPE, a BPE of our own, and bytes.

    tokenizer = text.build({"kind": "clip", "path": ".../bpe_simple_vocab_16e6.txt.gz"})
    tokens_bl, mask_bl = tokenizer.encode(["a photo of a dog"])

B captions, L = `context` positions.
"""

import abc
import dataclasses
import functools
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ftfy
import numpy as np

from mmjax import schema
from mmjax.data.tokenizers import merges as merges_lib
from mmjax.errors import UserError

FORMAT = "mmjax-tokenizer-1"
CONTEXT = 77  # CLIP's; 76 in the paper, which does not count one of the two marks
_NO_MERGES = (
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
        raise UserError(_NO_MERGES.format(dropout=dropout, kind=self.kind))

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
        tokens_bl = np.zeros((len(texts), self.context), np.int32)
        lengths_b1 = np.empty((len(texts), 1), np.int32)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                kind = type(text).__name__
                raise UserError(f"tokenizer: text {row} is {kind}, not str: {text!r}")
            cleaned = clean(text, self.lower)
            ids = (
                self._dropped(cleaned, dropout, rng) if dropout else self._ids(cleaned)
            )
            ids = ids[: self.context - 2]
            lengths_b1[row] = size = len(ids) + 2
            tokens_bl[row, :size] = (self.sot, *ids, self.eot)
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

    def __reduce__(self):
        return from_json, (self.to_json(),)


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


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: id 0 pads, byte b is id b + 1, SOT is 257 and EOT 258."""

    VOCAB = 1 + 256 + 2

    def __init__(self, *, context: int, lower: bool):
        super().__init__("bytes", vocab_size=self.VOCAB, context=context, lower=lower)

    def _ids(self, text: str) -> list[int]:
        return [b + 1 for b in text.encode("utf-8")]

    def _spell(self, ids: Sequence[int]) -> bytes:
        return bytes(i - 1 for i in ids if i)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """What `build` accepts. None: the file's value where there is one, else as noted.

    kind: `clip` (its vocabulary file at `path`), `bpe` (the JSON file at `path`, or
      without `path` trained on the run's captions), `bytes`, `pieces` (the tokenizer of
      imported weights, at `path`), or `none`: no text.
    vocab_size: for a BPE the most ids it may have, 8192; elsewhere fixed by the kind.
    context: tokens in a row, marks included, 77.
    lower: whether captions are lower-cased, True.
    dropout: chance that a merge is left out, 0 to 1, of training captions alone
      (Provilkov et al. 2020; 0.1 in DALL-E). No part of the tokenizer: the training
      iterator takes it.
    """

    kind: Literal["clip", "bpe", "bytes", "pieces", "none"] = "clip"
    path: str | None = None
    vocab_size: int | None = None
    context: int | None = None
    lower: bool | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise UserError(f"tokenizer: dropout {self.dropout}: use 0 to 1")
        if self.dropout and self.kind not in ("bpe", "clip"):
            raise UserError(_NO_MERGES.format(dropout=self.dropout, kind=self.kind))


def build(
    spec: Mapping[str, Any] | TokenizerConfig, texts: Iterable[str] | None = None
) -> Tokenizer | None:
    """The tokenizer that `spec` describes; `texts` trains a `bpe` without a path.

    None for kind `none`: batches then carry no text.

    Raises:
      UserError: an unknown key, a missing or foreign file, a value that the file
        contradicts, nothing to train on.
    """
    config = schema.from_mapping(TokenizerConfig, spec, "tokenizer")
    if config.kind == "none":
        return None
    context = CONTEXT if config.context is None else config.context
    lower = True if config.lower is None else config.lower
    if config.kind == "bpe":
        return _build_bpe(config, context, lower, texts)
    built: Tokenizer
    if config.kind == "pieces":
        built = load(config.path or "")
    elif config.kind == "bytes":
        if config.path:
            raise UserError(f"tokenizer: kind 'bytes' reads no file: {config.path!r}")
        built = ByteTokenizer(context=context, lower=lower)
    elif not config.path:
        raise UserError(
            "tokenizer: kind 'clip' needs tokenizer.path, the file "
            f"{merges_lib.CLIP_FILE} of github.com/openai/CLIP; without it use kind 'bpe'"
        )
    else:
        merges = merges_lib.read_clip(config.path)
        built = BpeTokenizer("clip", merges, context=context, lower=lower)
    if config.vocab_size not in (None, built.vocab_size):
        raise UserError(
            f"tokenizer: kind {config.kind!r} has {built.vocab_size} ids, vocab_size "
            f"asks for {config.vocab_size}: leave it out"
        )
    return built


def dropout(spec: Mapping[str, Any] | TokenizerConfig) -> float:
    """The `dropout` of a spec that `build` takes: what the training iterator wants."""
    return schema.from_mapping(TokenizerConfig, spec, "tokenizer").dropout


def _build_bpe(
    config: TokenizerConfig, context: int, lower: bool, texts: Iterable[str] | None
) -> Tokenizer:
    if not config.path:
        if texts is None:
            raise UserError(
                "tokenizer: kind 'bpe' needs tokenizer.path (made by `mmjax data bpe`) "
                "or captions to train on"
            )
        size = 8192 if config.vocab_size is None else config.vocab_size
        return train_bpe(texts, vocab_size=size, context=context, lower=lower)
    built = load(config.path)
    if built.kind != "bpe":
        raise UserError(f"tokenizer: {config.path} is of kind {built.kind!r}, not bpe")
    if config.lower not in (None, built.lower):
        raise UserError(
            f"tokenizer: {config.path} was trained with lower={built.lower}, the "
            f"config says {config.lower}: leave it out, or train another"
        )
    if config.vocab_size is not None and config.vocab_size < built.vocab_size:
        raise UserError(
            f"tokenizer: {config.path} has {built.vocab_size} ids, vocab_size allows "
            f"{config.vocab_size}: leave it out, or train a smaller one"
        )
    if config.context in (None, built.context):
        return built
    return BpeTokenizer("bpe", built.merges, context=context, lower=built.lower)


def train_bpe(
    texts: Iterable[str], vocab_size: int, context: int = CONTEXT, lower: bool = True
) -> BpeTokenizer:
    """A BPE of at most `vocab_size` ids learned from captions; same texts, same ids.

    Few captions give fewer ids: size a model by the result's `vocab_size`.
    """
    cleaned = (clean(text, lower) for text in texts)
    merges = merges_lib.train(cleaned, vocab_size=vocab_size)
    return BpeTokenizer("bpe", merges, context=context, lower=lower)


@dataclasses.dataclass(frozen=True)
class _Saved:
    format: Literal["mmjax-tokenizer-1"]
    kind: Literal["clip", "bpe", "bytes"]
    context: int
    lower: bool
    merges: tuple[str, ...]


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` wrote. Reads data only, runs nothing.

    Raises:
      UserError: not JSON, or not of this format.
    """
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"tokenizer: not JSON: {error}") from error
    if isinstance(values, dict) and values.get("kind") == "pieces":
        from mmjax.data.tokenizers import pieces

        return pieces.from_values(values)
    saved = schema.from_mapping(_Saved, values, "tokenizer JSON")
    if saved.kind == "bytes":
        return ByteTokenizer(context=saved.context, lower=saved.lower)
    merges = tuple(tuple(merge.split(" ")) for merge in saved.merges)
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            line = saved.merges[number]
            raise UserError(f"tokenizer: merge {number} is not two symbols: {line!r}")
    if (
        saved.kind == "clip"
        and len(merges) != merges_lib.CLIP_VOCAB - merges_lib.BASE - merges_lib.SPECIALS
    ):
        raise UserError(f"tokenizer: {len(merges)} merges are not CLIP's: 48894")
    return BpeTokenizer(saved.kind, merges, context=saved.context, lower=saved.lower)


def load(path: str | Path) -> Tokenizer:
    """`from_json` of a file.

    Raises:
      UserError: missing, not UTF-8, or not a tokenizer; the message names the file.
    """
    try:
        return from_json(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"tokenizer: cannot read {str(path)!r} ({error.strerror}); make one with "
            "`mmjax data bpe`"
        ) from error
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: {error}") from error
