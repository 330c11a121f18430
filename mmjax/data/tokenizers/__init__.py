"""Captions to token ids: one door over CLIP's BPE, a BPE of our own, words, bytes.

    tokenizer = tokenizers.build({"kind": "bpe"}, texts=captions)
    tokens_bl, mask_bl = tokenizer.encode(["a photo of a dog"])

B captions, L = `context` positions.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from mmjax import schema
from mmjax.data.tokenizers import merges as merges_lib
from mmjax.data.tokenizers import words
from mmjax.data.tokenizers.base import CONTEXT, FORMAT, Tokenizer
from mmjax.data.tokenizers.bpe import BpeTokenizer, train_bpe
from mmjax.data.tokenizers.bytes import ByteTokenizer
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """What `build` accepts; `mmjax.data.fields.text.Field` says what the keys mean."""

    kind: Literal["clip", "bpe", "bytes", "pieces", "words"] = "clip"
    path: str | None = None
    vocab_size: int | None = None
    context: int | None = None
    lower: bool | None = None
    min_count: int | None = None


def build(spec: Mapping[str, Any], texts: Iterable[str] | None = None) -> Tokenizer:
    """The tokenizer that `spec` describes; `texts` trains those without a path.

    Raises:
      UserError: an unknown key, a missing or foreign file, a value that the file
        contradicts, nothing to train on.
    """
    config = schema.from_mapping(TokenizerConfig, spec, "tokenizer")
    context = CONTEXT if config.context is None else config.context
    lower = True if config.lower is None else config.lower
    if config.kind == "bpe":
        return _build_bpe(config, context, lower, texts)
    if config.kind == "words" and not config.path:
        return words.train_words(
            texts or (),
            min_count=config.min_count or words.MIN_COUNT,
            vocab_size=config.vocab_size,
            context=context,
            lower=lower,
        )
    built: Tokenizer
    if config.kind in ("pieces", "words"):
        built = load(config.path or "")
    elif config.kind == "bytes":
        if config.path:
            raise UserError(f"tokenizer: kind 'bytes' reads no file: {config.path!r}")
        built = ByteTokenizer(context=context, lower=lower)
    elif not config.path:
        raise UserError(
            "tokenizer: kind 'clip' needs a path, the file "
            f"{merges_lib.CLIP_FILE} of github.com/openai/CLIP; without it use kind "
            "'bpe'"
        )
    elif Path(config.path).is_dir():
        built = load(config.path)
        if config.context not in (None, built.context):
            built = BpeTokenizer("clip", built.merges, context=context, lower=lower)
    else:
        merges = merges_lib.read_clip(config.path)
        built = BpeTokenizer("clip", merges, context=context, lower=lower)
    if config.vocab_size not in (None, built.vocab_size):
        raise UserError(
            f"tokenizer: kind {config.kind!r} has {built.vocab_size} ids, vocab_size "
            f"asks for {config.vocab_size}: leave it out"
        )
    return built


def _build_bpe(
    config: TokenizerConfig, context: int, lower: bool, texts: Iterable[str] | None
) -> Tokenizer:
    if not config.path:
        if texts is None:
            raise UserError(
                "tokenizer: kind 'bpe' needs a path (made by `mmjax data bpe`) "
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
        values = schema.parse_json(text)
    except ValueError as error:
        raise UserError(f"tokenizer: not JSON: {error}") from error
    kind = values.get("kind") if isinstance(values, dict) else ""
    if kind == "pieces":
        from mmjax.data.tokenizers import pieces

        return pieces.from_values(values)
    if kind == "words":
        return words.from_values(values)
    saved = schema.from_mapping(_Saved, values, "tokenizer JSON")
    if saved.kind == "bytes":
        return ByteTokenizer(context=saved.context, lower=saved.lower)
    merges = tuple(tuple(merge.split(" ")) for merge in saved.merges)
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            line = saved.merges[number]
            raise UserError(f"tokenizer: merge {number} is not two symbols: {line!r}")
    if saved.kind == "clip" and len(merges) != merges_lib.CLIP_MERGES:
        raise UserError(f"tokenizer: {len(merges)} merges are not CLIP's: 48894")
    return BpeTokenizer(saved.kind, merges, context=saved.context, lower=saved.lower)


def load(path: str | Path) -> Tokenizer:
    """`from_json` of a file, or the tokenizer of a run, by its workdir.

    Raises:
      UserError: missing, not UTF-8, or not a tokenizer; the message names the file.
    """
    try:
        if Path(path).is_dir():
            return _of_run(Path(path) / "run.json")
        return from_json(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"tokenizer: cannot read {str(path)!r} ({error.strerror}); make one with "
            "`mmjax data bpe`"
        ) from error
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{path}: {error}") from error


def _of_run(path: Path) -> Tokenizer:
    """The one tokenizer among the fields that a run's `run.json` keeps."""
    held = schema.read_json(path, fix="name a run, or the file of a tokenizer")
    fields = held["fields"] if "fields" in held else {}
    saved = fields.values() if isinstance(fields, dict) else ()
    start = f'{{"format":"{FORMAT}"'
    texts = [text for text in saved if isinstance(text, str) and text.startswith(start)]
    if len(texts) != 1:
        raise UserError(f"it holds {len(texts)} tokenizers, and one is asked for")
    return from_json(texts[0])
