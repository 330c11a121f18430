"""SigLIP's tokenizer: tokenizer.json and tokenizer_config.json."""

import json
from typing import Any

from mmjax.convert.read import Source
from mmjax.data.tokenizers import base, pieces
from mmjax.errors import UserError


def of_folder(
    source: Source, context: int, vocab_size: int, clean: str = ""
) -> base.Tokenizer:
    """The tokenizer beside the weights.

    clean: open_clip's name of the cleaning that it does in code.

    Raises UserError where there is only a sentencepiece model, or its ids are more
    than the model has.
    """
    path = source.folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{source.place}: has no tokenizer.json beside it, and sentencepiece "
            "models are not read; the tokenizers of SigLIP on the Hub have one"
        )
    theirs = source.files.get("tokenizer_config.json", {})
    words = path.read_text(encoding="utf-8")
    end, pad = (_token(theirs, name) for name in ("eos_token", "pad_token"))
    engine = pieces.opened(words)
    ids = {token: engine.token_to_id(token) for token in (end, pad)}
    for token, number in ids.items():
        if number is None:
            raise UserError(f"{path}: tokenizer_config.json's {token!r} is no token")
    # SiglipTokenizer cleans in code as well.
    siglip = str(theirs.get("tokenizer_class", "")).startswith("SiglipTokenizer")
    clean = "canonical_" if clean == "canonicalize" else "canonical" if siglip else ""
    built = pieces.PieceTokenizer(
        pieces.completed(words, end=end, clean=clean),
        context=context,
        end=ids[end],
        pad=ids[pad],
    )
    if built.vocab_size > vocab_size:
        raise UserError(
            f"{source.place}: tokenizer.json has {built.vocab_size} ids, the model "
            f"{vocab_size}: they are of two models"
        )
    return built


def _token(theirs: dict[str, Any], name: str) -> str:
    token = theirs.get(name, "</s>")
    return token["content"] if isinstance(token, dict) else token


def hugging_face_files(
    words: base.Tokenizer | None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Files for transformers, and notes."""
    if not isinstance(words, pieces.PieceTokenizer):
        return {}, ("the tokenizer is not one of SigLIP's kind: it is not written",)
    engine = pieces.opened(words.words)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # its cleaning is in the file
        "eos_token": engine.id_to_token(words.eot),
        "pad_token": engine.id_to_token(words.pad),
        "model_max_length": words.context,
        "model_input_names": ["input_ids"],
    }
    return {
        "tokenizer.json": words.words,
        "tokenizer_config.json": json.dumps(config, indent=2),
    }, ()
