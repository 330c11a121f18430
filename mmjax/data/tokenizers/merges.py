"""Byte-pair encoding in CLIP's layout: symbols, words, training, CLIP's vocabulary.

Everything here is text in, numbers out; callers use `mmjax.data.tokenizers`. A
vocabulary is its list of merges, in order: the 256 byte symbols, the same 256 with the
end-of-word mark, one symbol a merge, start of text, end of text (openai/CLIP,
clip/simple_tokenizer.py).
"""

import functools
import gzip
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from mmjax.errors import UserError

Merges = tuple[tuple[str, str], ...]

END = "</w>"
CLIP_FILE = "bpe_simple_vocab_16e6.txt.gz"
CLIP_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
CLIP_VOCAB = 49408
BASE = 2 * 256  # symbols that exist before the first merge
SPECIALS = 2
CLIP_MERGES = CLIP_VOCAB - BASE - SPECIALS

# The original's pattern. It also lists its two special tokens, so that a caption which
# spells one out gets its id; here it stays plain text: no caption can forge an end.
# The original drops U+0345, a quirk of its case-insensitive engine. Characters newer
# than Unicode 16 may split differently, there as here, with the engine's release.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
# The same on ASCII text, where Python's own engine needs no Unicode classes.
ASCII_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", re.ASCII | re.IGNORECASE
)


@functools.cache
def _byte_of() -> dict[str, int]:
    """Symbol to byte, in the order of the ids: printable bytes spell themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    shifted = {chr(256 + n): b for n, b in enumerate(others)}
    return {chr(b): b for b in printable} | shifted


def symbols() -> tuple[str, ...]:
    """The 256 byte symbols in the order of their ids."""
    return tuple(_byte_of())


def vocabulary(merges: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Symbols in the order of their ids, without the two specials.

    Two merges that spell the same symbol share its id.

    Raises:
      UserError: a merge joins a symbol that does not exist yet.
    """
    known = dict.fromkeys(symbols() + tuple(s + END for s in symbols()))
    for number, (left, right) in enumerate(merges):
        for half in (left, right):
            if half not in known:
                raise UserError(
                    f"tokenizer: merge {number} joins {left!r} and {right!r}, but no "
                    f"earlier merge makes {half!r}: the file is cut or reordered"
                )
        known[left + right] = None
    return tuple(known)


def engine(merges: Sequence[tuple[str, str]]) -> tokenizers.Tokenizer:
    """The Rust encoder of cleaned text; adds no special tokens."""
    ids = {symbol: i for i, symbol in enumerate(vocabulary(merges))}
    model = models.BPE(vocab=ids, merges=list(merges), end_of_word_suffix=END)
    built = tokenizers.Tokenizer(model)
    words = pre_tokenizers.Split(tokenizers.Regex(WORDS), "removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    return built


def spell(symbol: str) -> bytes:
    """The bytes that a symbol stands for; a space follows the end of a word."""
    text, space = (symbol[: -len(END)], b" ") if symbol.endswith(END) else (symbol, b"")
    return bytes(map(_byte_of().__getitem__, text)) + space


def words(text: str, encoder: tokenizers.Tokenizer) -> list[bytes]:
    """The words of cleaned text in UTF-8, as `encoder` (of `engine`) cuts them."""
    if text.isascii():
        return [word.encode() for word in ASCII_WORDS.findall(text)]
    return [spell(word) for word, _ in encoder.pre_tokenizer.pre_tokenize_str(text)]


class Dropout:
    """BPE-dropout (Provilkov et al. 2020, algorithm 1), from the caller's numbers.

    Before each merge every possible merge of the word is dropped with chance p, each
    occurrence on its own, and the first of the rest by (rank, position) is made; the
    word is done when none is left. So the number k of the best merges that are dropped
    is geometric, P(k) = (1 - p) p^k, and one uniform number a merge decides it. How
    words fall apart is remembered, so that a step is a look-up. The Rust encoder's own
    dropout draws from a generator of its thread and cannot be repeated.

    Words of more than 64 bytes are merged in pieces of 64 bytes, for a step's cost is
    their length: a merge across two pieces is never made.
    """

    _KEPT, _PIECE = 1 << 17, 64  # states remembered, bytes in a piece

    def __init__(self, merges: Sequence[tuple[str, str]]):
        known = vocabulary(merges)
        ids = {symbol: i for i, symbol in enumerate(known)}
        self._made = [ids[left + right] for left, right in merges]
        self._rank = {}
        for rank, (left, right) in enumerate(merges):
            self._rank.setdefault((ids[left], ids[right]), rank)
        self._byte = {byte: ids[symbol] for symbol, byte in _byte_of().items()}
        self._states: dict[tuple[int, ...], _State] = {}

    def ids(
        self, words: Sequence[bytes], rate: float, rng: np.random.Generator
    ) -> list[int]:
        """Ids of words in UTF-8; draws as many numbers as they have bytes.

        rate: p, from 0 (the encoder's own ids) to 1 (one id a byte).
        """
        drops = _drops(sum(map(len, words)), rate, rng)
        ids: list[int] = []
        for word in words:
            for start in range(0, len(word), self._PIECE):
                stop = start + self._PIECE
                ids += self._split(word[start:stop], stop >= len(word), drops)
        return ids

    def _split(self, piece: bytes, last: bool, drops: Iterator[int]) -> tuple[int, ...]:
        symbols = [self._byte[byte] for byte in piece]
        if last:
            symbols[-1] += BASE // 2  # the same byte with the end-of-word mark
        state = self._state(tuple(symbols))
        while state.after:
            drop = next(drops)
            if drop >= len(state.after):
                break
            state = state.after[drop] or self._merge(state, drop)
        return state.ids

    def _merge(self, state: "_State", number: int) -> "_State":
        """What the possible merge of that number leads to, now known to `state`."""
        rank, at = state.merges[number]
        ids = (*state.ids[:at], self._made[rank], *state.ids[at + 2 :])
        state.after[number] = self._state(ids)
        return state.after[number]

    def _state(self, ids: tuple[int, ...]) -> "_State":
        if ids not in self._states:
            if len(self._states) >= self._KEPT:
                self._states.clear()
            self._states[ids] = _State(ids, self._rank)
        return self._states[ids]


class _State:
    """A word part-way merged: its ids, its possible merges, and where they lead."""

    __slots__ = ("after", "ids", "merges")

    def __init__(self, ids: tuple[int, ...], ranks: dict[tuple[int, int], int]):
        pairs = enumerate(zip(ids, ids[1:], strict=False))
        self.ids = ids
        self.merges = sorted((ranks[p], at) for at, p in pairs if p in ranks)
        self.after: list[_State | None] = [None] * len(self.merges)


def _drops(count: int, rate: float, rng: np.random.Generator) -> Iterator[int]:
    """`count` geometric numbers, P(k) = (1 - rate) rate^k, by inversion."""
    draws = rng.random(count)
    if rate in (0, 1):
        return iter([0 if rate == 0 else sys.maxsize] * count)
    return iter((np.log1p(-draws) / np.log(rate)).astype(np.int64).tolist())


def train(texts: Iterable[str], *, vocab_size: int) -> Merges:
    """Learns merges from cleaned `texts` until the vocabulary holds `vocab_size` ids.

    Fewer merges come back when no pair occurs twice any more. Deterministic: ties fall
    to the lower ids, and all 512 base ids are fixed beforehand (left to the trainer,
    they would follow its hash order).

    Raises:
      UserError: `vocab_size` leaves no room for one merge, or there is no text.
    """
    least = BASE + SPECIALS + 1
    if vocab_size < least:
        raise UserError(
            f"tokenizer: vocab_size {vocab_size} leaves no room for a merge: "
            f"{BASE} byte symbols and {SPECIALS} specials come first, use {least} or "
            "more, or kind 'bytes'"
        )
    learner = engine(())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - SPECIALS,
        min_frequency=2,
        special_tokens=list(vocabulary(())),
        end_of_word_suffix=END,
        show_progress=False,
    )
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text)
            yield text

    learner.train_from_iterator(counted(), trainer)
    if not seen:
        raise UserError(
            "tokenizer: no captions to train on: the source has no text. Put name.txt "
            "beside name.jpg, or make captions of class names: "
            "folder:DIR?label=parent&template=a photo of a {}."
        )
    merges = json.loads(learner.to_str())["model"]["merges"]
    return tuple((left, right) for left, right in merges)


def read_clip(path: str | Path) -> Merges:
    """The 48,894 merges of CLIP's vocabulary file, in order.

    Raises:
      UserError: the file is missing, or is not the original to the last byte.
    """
    source = f"{CLIP_FILE} from github.com/openai/CLIP, folder clip/"
    try:
        packed = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"tokenizer: cannot read CLIP's vocabulary at {str(path)!r} "
            f"({error.strerror}): path must name {source}"
        ) from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != CLIP_SHA256:
        raise UserError(
            f"tokenizer: {path} is not CLIP's vocabulary: sha256 {digest}, expected "
            f"{CLIP_SHA256}; fetch {source} again, or use kind 'bpe'"
        )
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    chosen = lines[1 : CLIP_MERGES + 1]  # the slice the original takes
    return tuple((left, right) for left, right in map(str.split, chosen))
