"""SigLIP's tokenizer: tokenizer.json and tokenizer_config.json."""

import json
from typing import Any

from mmjax.convert.families import _words
from mmjax.convert.read import Source
from mmjax.data import pieces
from mmjax.errors import UserError


def of_folder(source: Source, context: int, vocab_size: int) -> str:
    """The tokenizer beside the weights as our JSON.

    Raises UserError where there is only a sentencepiece model, or its ids are more
    than the model has.
    """
    path = source.folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{source.place}: has no tokenizer.json, and sentencepiece models are not "
            "read: transformers writes one, AutoTokenizer.from_pretrained(X, "
            "use_fast=True).save_pretrained(FOLDER)"
        )
    config = source.files.get("tokenizer_config.json", {})
    words = path.read_text(encoding="utf-8")
    ids = _ids(source.files["tokenizer.json"])
    end, pad = (_special(config, ids, name) for name in ("eos_token", "pad_token"))
    # SiglipTokenizer removes punctuation in code, not in its file.
    siglip = str(config.get("tokenizer_class", "")).startswith("SiglipTokenizer")
    clean = "canonical" if siglip else "none"
    built = pieces.PieceTokenizer(words, context=context, end=end, pad=pad, clean=clean)
    if built.vocab_size > vocab_size:
        raise UserError(
            f"{source.place}: tokenizer.json has {built.vocab_size} ids, the model "
            f"{vocab_size}: they are of two models"
        )
    return built.to_json()


def _ids(words: dict[str, Any]) -> dict[str, int]:
    """Token to id, of a tokenizer.json: BPE keeps a mapping, Unigram a list."""
    vocab = words.get("model", {}).get("vocab", {})
    if isinstance(vocab, list):
        vocab = {entry[0]: i for i, entry in enumerate(vocab)}
    return vocab | {t["content"]: t["id"] for t in words.get("added_tokens", [])}


def _special(config: dict[str, Any], ids: dict[str, int], name: str) -> int:
    found = config.get(name, "</s>")
    found = found["content"] if isinstance(found, dict) else found
    if found not in ids:
        raise UserError(f"tokenizer_config.json: {name} {found!r} is no token")
    return ids[found]


def hugging_face_files(tokenizer: str | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Files for transformers, and notes."""
    words = _words.opened(tokenizer)
    if not isinstance(words, pieces.PieceTokenizer):
        return {}, ("the tokenizer is not one of SigLIP's kind: it is not written",)
    tokens = {i: token for token, i in _ids(json.loads(words.words)).items()}
    canonical = json.loads(words.to_json())["clean"] == "canonical"
    config = {
        "tokenizer_class": "SiglipTokenizer"
        if canonical
        else "PreTrainedTokenizerFast",
        "eos_token": tokens[words.eot],
        "pad_token": tokens[words.pad],
        "model_max_length": words.context,
    }
    return {
        "tokenizer.json": words.words,
        "tokenizer_config.json": json.dumps(config, indent=2),
    }, ()
