"""minDALL-E: a folder with stage1_last.ckpt, stage2_last.ckpt and tokenizer/.

Its prior (kakaobrain, 1.3 billion parameters) with its VQGAN frozen below it. The
original reads padding as a token of its vocabulary, ours as a vector of its position:
that token's, at every position.
"""

import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np
import tokenizers

from mmjax.convert import formats
from mmjax.convert.formats import taming_vqgan
from mmjax.convert.formats._rules import dense, fused, norm
from mmjax.convert.name_table import Rule, Table, UnknownLayout
from mmjax.convert.read import Source
from mmjax.convert.transforms import DENSE
from mmjax.data import tokenizers as tokenizers_lib
from mmjax.data.tokenizers import base, pieces
from mmjax.errors import UserError

ABOUT = "minDALL-E: a folder with both stages and the tokenizer"
TASK = "prior"
STAGE1, STAGE2, FROZEN = "stage1.", "stage2.", "frozen/tokenizer/"
UNKNOWN, PAD = "[UNK]", "[PAD]"
_HEAD = 64  # width of a head; it is in no array
_PADS = "params/text_pad_embedding"


def _table() -> Table:
    theirs, ours = "blocks.{i}", "params/block_{i}"
    parts = [f"{theirs}.attn.{name}" for name in ("query", "key", "value")]
    return Table(
        Rule("tok_emb_txt.weight", "params/text_embedding"),
        Rule("pos_emb_txt.weight", "params/text_position_embedding"),
        Rule("tok_emb_img.weight", "params/image_embedding"),
        Rule("pos_emb_img.weight", "params/place_embedding"),
        *norm(f"{theirs}.ln1", f"{ours}/norm_1"),
        *norm(f"{theirs}.ln2", f"{ours}/norm_2"),
        *fused(parts, f"{ours}/attn/qkv"),
        *dense(f"{theirs}.attn.proj", f"{ours}/attn/out"),
        *dense(f"{theirs}.mlp.0", f"{ours}/fc"),
        *dense(f"{theirs}.mlp.2", f"{ours}/proj"),
        *norm("ln_f", "params/norm_post"),
        Rule("head_txt.weight", "params/text_head/kernel", DENSE),
        Rule("head_img.weight", "params/image_head/kernel", DENSE),
    )


TABLE = _table()


def detect(source: Source) -> bool:
    keys = {key.removeprefix(STAGE2) for key in source.tensors}
    return {"tok_emb_txt.weight", "pos_emb_img.weight", "head_img.weight"} <= keys


def known(keys: Iterable[str]) -> int:
    keys = list(keys)
    first = [key.removeprefix(STAGE1) for key in keys if key.startswith(STAGE1)]
    second = [key.removeprefix(STAGE2) for key in keys if key.startswith(STAGE2)]
    return taming_vqgan.known(first) + TABLE.known(second)


def _stage(source: Source, head: str) -> Source:
    found = {
        key.removeprefix(head): value
        for key, value in source.tensors.items()
        if key.startswith(head)
    }
    if not found:
        raise UserError(
            f"{source.place}: holds no {head[:-1]}: give the folder with "
            "stage1_last.ckpt, stage2_last.ckpt and tokenizer/"
        )
    return Source(source.place, found, source.files, source.folder)


def to_mmjax(source: Source) -> formats.Model:
    other = [k for k in source.tensors if not k.startswith((STAGE1, STAGE2))]
    first, second = _stage(source, STAGE1), _stage(source, STAGE2)
    if other:
        raise UnknownLayout(f"{source.place}: {other[0]} is of neither stage", other)
    below = taming_vqgan.to_mmjax(first)
    arrays, kept = formats.loaded(TABLE, second)
    vocab_size, width = arrays["params/text_embedding"].shape
    context = len(arrays["params/text_position_embedding"])
    words = _words(source, context, vocab_size)
    row_w = arrays["params/text_embedding"][words.pad]
    arrays[_PADS] = np.broadcast_to(row_w, (context, width))
    arrays |= {FROZEN + path: value for path, value in below.arrays.items()}
    spec = dict(below.task["tokenizer"])
    spec["image_size"] = _side(arrays["params/place_embedding"], spec, source.place)
    blocks = [re.match(r"params/block_(\d+)/", path) for path in arrays]
    hidden = arrays["params/block_0/fc/bias"].shape[0]
    task = {
        "name": TASK,
        "stage1": spec,
        "width": width,
        "depth": 1 + max(int(hit[1]) for hit in blocks if hit),
        "heads": max(1, width // _HEAD),
        "vocab_size": vocab_size,
        "context": context,
        "masks": "full",
        "places": "free",
        "mlp_ratio": hidden / width,
        "init_style": "mindalle",
        "sampling": {"top_k": min(256, len(arrays["params/image_embedding"]))},
    }
    kept = {"stage1": dict(below.kept), "stage2": kept}
    image = taming_vqgan.picture(spec["image_size"])
    return formats.Model(task, image, words.to_json(), arrays, kept)


def _side(place_nw: np.ndarray, spec: Mapping, place: str) -> int:
    """Pixels a side of pictures that have as many tokens as there are places."""
    grid = math.isqrt(len(place_nw))
    if grid**2 != len(place_nw):
        raise UserError(
            f"{place}: pos_emb_img has {len(place_nw)} places, which make no square"
        )
    return grid * 2 ** (len(spec["net"]["mult"]) - 1)


def _files(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(vocab.json, merges.txt), whatever their sizes are called."""
    found = [sorted(folder.glob(f"tokenizer/bpe-*{x}")) for x in ("json", "txt")]
    if [len(names) for names in found] != [1, 1]:
        raise UserError(
            f"{folder}/tokenizer has to hold minDALL-E's bpe-16k-vocab.json and "
            "bpe-16k-merges.txt: its text cannot be read without them"
        )
    return found[0][0], found[1][0]


def _words(source: Source, context: int, vocab_size: int) -> pieces.PieceTokenizer:
    """minDALL-E's tokenizer: lower-cased BPE of characters, without marks."""
    names = _files(source.folder)
    try:
        engine = tokenizers.CharBPETokenizer.from_file(
            *map(str, names), unk_token=UNKNOWN, lowercase=True
        )
    except Exception as e:  # the library raises nothing narrower
        raise UserError(f"{names[0].parent}: not a byte-pair encoding ({e})") from e
    engine.add_special_tokens([PAD])
    pad = engine.token_to_id(PAD)
    if engine.get_vocab_size() > vocab_size:
        raise UserError(
            f"{source.place}: its tokenizer has {engine.get_vocab_size()} ids, the "
            f"prior {vocab_size}: they are of two models"
        )
    # nothing ends a text but its padding
    fields = {"context": context, "end": pad, "pad": pad}
    return pieces.PieceTokenizer(engine.to_str(), **fields)


def from_mmjax(model: formats.Model) -> formats.Export:
    words = (
        None if model.tokenizer is None else tokenizers_lib.from_json(model.tokenizer)
    )
    _fits(model, words)
    first, second = {}, {}
    for path, value in model.arrays.items():
        if path.startswith(FROZEN):
            first[path.removeprefix(FROZEN)] = value
        elif path != _PADS:
            second[path] = value
    task = {"name": "vqvae", "tokenizer": model.task["stage1"]}
    kept = (model.kept.get(name, {}) for name in ("stage1", "stage2"))
    below = formats.Model(task, model.image, None, first, next(kept))
    (codes,) = taming_vqgan.from_mmjax(below).tensors.values()
    above = formats.Model(model.task, model.image, None, second, next(kept))
    found = json.loads(words.words)["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in found["merges"]]
    return formats.Export(
        {
            "stage1_last.safetensors": codes,
            "stage2_last.safetensors": formats.saved(TABLE, above),
        },
        {
            "tokenizer/bpe-16k-vocab.json": json.dumps(
                found["vocab"], ensure_ascii=False
            ),
            "tokenizer/bpe-16k-merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        },
    )


def _fits(model: formats.Model, words: base.Tokenizer | None) -> None:
    """UserError for what minDALL-E's code has not."""
    task: Mapping = model.task
    wanted = {
        "places": "free",
        "masks": "full",
        "act": "gelu",
        "neighbours": False,
        "text_pads": "ignored",
    }
    for key, value in wanted.items():
        if task.get(key, value) != value:
            raise UserError(
                f"{key} is {task[key]!r}: minDALL-E's prior has {value!r} alone"
            )
    if task["width"] != _HEAD * task["heads"]:
        raise UserError(
            f"width {task['width']} with {task['heads']} heads: this format takes "
            f"heads of {_HEAD}"
        )
    if task["stage1"].get("kind") != "vqvae":
        raise UserError(
            f"the prior's tokenizer is a {task['stage1'].get('kind')!r}: minDALL-E's "
            "is a VQGAN"
        )
    if not isinstance(words, pieces.PieceTokenizer):
        raise UserError("the text is not read by minDALL-E's tokenizer")
    row_w = model.arrays["params/text_embedding"][words.pad]
    if (model.arrays[_PADS] != row_w).any():
        raise UserError(
            "the vectors of padding were trained on; minDALL-E reads one token's "
            f"({PAD}) at every position: it has no place for them"
        )
