"""CLIP's tokenizer in the files that public models keep it in."""

import gzip
import importlib.util
import json
import os
import pathlib
from collections.abc import Sequence

from mmjax.convert import read
from mmjax.convert.read import Source
from mmjax.data.tokenizers import base, bpe
from mmjax.data.tokenizers import merges as merges_lib
from mmjax.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
OWN = "bpe.txt.gz"  # merges of a tokenizer that is not CLIP's, in the form of its file
_MERGES_HEAD = "#version: 0.2"


def clip(context: int, source: Source) -> base.Tokenizer:
    """The tokenizer of weights that come with none but CLIP's.

    OWN beside the weights, or CLIP's file: looked for there, below $MMJAX_DATA, and in
    an open_clip that is installed (which is not imported).
    """
    own = source.folder / OWN
    if own.is_file():
        try:
            text = gzip.decompress(read.whole(own)).decode("utf-8")
        except (OSError, EOFError, ValueError) as e:
            raise UserError(f"{own}: damaged ({e})") from e
        return from_merges(
            [tuple(line.split()) for line in text.split("\n")[1:]], context
        )
    folders = [source.folder]
    if "MMJAX_DATA" in os.environ:
        folders.append(pathlib.Path(os.environ["MMJAX_DATA"], "reference/openai_clip"))
    try:
        package = importlib.util.find_spec("open_clip")
    except ValueError:  # a stand-in without a spec
        package = None
    if package and package.origin:
        folders.append(pathlib.Path(package.origin).parent)
    for folder in folders:
        path = folder / merges_lib.CLIP_FILE
        if path.is_file():
            return from_merges(merges_lib.read_clip(path), context)
    raise UserError(
        f"{source.place}: CLIP's tokenizer is not in it: put {merges_lib.CLIP_FILE} of "
        f"github.com/openai/CLIP into {source.folder}, or set MMJAX_DATA"
    )


def of_folder(source: Source, context: int, vocab_size: int) -> base.Tokenizer | None:
    """The byte-pair tokenizer of a Hugging Face folder, or None.

    Raises UserError where the folder's tokenizer is of another kind, or its ids are
    not in the order that follows from its merges.
    """
    words = source.files.get("tokenizer.json")
    merges_file = source.folder / "merges.txt"
    if words is not None:
        model = words.get("model", {})
        mark = model.get("end_of_word_suffix")
        if (model.get("type"), mark) != ("BPE", merges_lib.END):
            raise UserError(
                f"{source.place}: tokenizer.json is a {model.get('type')}, not CLIP's "
                "byte-pair encoding: this model's text cannot be read here"
            )
        pairs, ids = model["merges"], model["vocab"]
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in pairs]
    elif merges_file.is_file():
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1:] if line.strip()]
        ids = source.files.get("vocab.json")
    else:
        return None
    built = from_merges(merges, context)
    known = (*merges_lib.vocabulary(merges), START, END)
    if built.vocab_size != vocab_size or (
        ids is not None and any(ids.get(word) != i for i, word in enumerate(known))
    ):
        raise UserError(
            f"{source.place}: the tokenizer beside the weights has {built.vocab_size} "
            f"ids, the model {vocab_size}, or they are in another order than CLIP's"
        )
    return built


def from_merges(merges: Sequence[tuple[str, str]], context: int) -> base.Tokenizer:
    """A lower-casing tokenizer; of kind `clip` where it is as large as CLIP's."""
    kind = "clip" if len(merges) == merges_lib.CLIP_MERGES else "bpe"
    return bpe.BpeTokenizer(kind, tuple(merges), context=context, lower=True)


def hugging_face_files(
    words: base.Tokenizer | None, *, pad: str = END
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Files that transformers.CLIPTokenizer reads, and notes.

    pad: the word that fills a text up.
    """
    if words is None or not words.merges:
        return {}, ("the tokenizer is not a byte-pair encoding: it is not written",)
    known = (*merges_lib.vocabulary(words.merges), START, END)
    vocab = {word: i for i, word in enumerate(known)}
    lines = [_MERGES_HEAD, *(" ".join(merge) for merge in words.merges), ""]
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad,
        "model_max_length": words.context,
        "do_lower_case": words.lower,
    }
    special = {k: v for k, v in config.items() if k.endswith("_token")}
    notes = () if words.lower else ("CLIPTokenizer lower-cases, this model does not",)
    return {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "\n".join(lines),
        "tokenizer_config.json": json.dumps(config, indent=2),
        "special_tokens_map.json": json.dumps(special, indent=2),
    }, notes


def bpe_file(words: base.Tokenizer | None) -> dict[str, bytes]:
    """What open_clip's SimpleTokenizer and OpenAI's take as `bpe_path`, unless both
    have it: they come with CLIP's."""
    if words is None or not words.merges or words.kind == "clip":
        return {}
    if len(set(map("".join, words.merges))) < len(words.merges):
        return {}  # there, two merges of one spelling have two ids
    # Both skip the first line, and take what follows up to CLIP's number of merges.
    lines = ["bpe_simple_vocab", *(" ".join(merge) for merge in words.merges)]
    raw = gzip.compress("\n".join(lines).encode("utf-8"), mtime=0)
    return {OWN: raw}
