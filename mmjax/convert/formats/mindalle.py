"""minDALL-E: a folder with stage1_last.ckpt, stage2_last.ckpt and tokenizer/.

Its prior (kakaobrain, 1.3 billion parameters) with its VQGAN frozen below it. The
original reads padding as a token of its vocabulary, ours as a vector of its position:
that token's, at every position.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping

import numpy as np
import tokenizers

from mmjax.convert import formats
from mmjax.convert.formats import _vqgan, taming_vqgan
from mmjax.convert.formats._rules import MINDALLE, blocks, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import DENSE
from mmjax.data.tokenizers import pieces
from mmjax.errors import UserError

ABOUT = "minDALL-E: a folder with both stages and the tokenizer"
TASK = "prior"
STAGES, FROZEN = ("stage1", "stage2"), "frozen/tokenizer/"
UNKNOWN, PAD = "[UNK]", "[PAD]"
_HEAD = 64  # width of a head; it is in no array
_PADS = "params/text_pad_embedding"
_PRIOR = [
    Rule("tok_emb_txt.weight", "params/text_embedding"),
    Rule("pos_emb_txt.weight", "params/text_position_embedding"),
    Rule("tok_emb_img.weight", "params/image_embedding"),
    Rule("pos_emb_img.weight", "params/place_embedding"),
    *blocks("blocks", "params", MINDALLE),
    *norm("ln_f", "params/norm_post"),
    Rule("head_txt.weight", "params/text_head/kernel", DENSE),
    Rule("head_img.weight", "params/image_head/kernel", DENSE),
]
TABLE = Table(
    *(rule.below("stage1.", FROZEN) for rule in taming_vqgan.RULES),
    *(rule.below("stage2.", "") for rule in _PRIOR),
)


def detect(source: Source) -> bool:
    keys = {key.removeprefix("stage2.") for key in source.tensors}
    return {"tok_emb_txt.weight", "pos_emb_img.weight", "head_img.weight"} <= keys


def to_mmjax(source: Source) -> formats.Model:
    for stage, tensors in formats.split(source.tensors, *STAGES).items():
        if not tensors:
            raise UserError(
                f"{source.place}: holds no {stage}: give the folder with "
                "stage1_last.ckpt, stage2_last.ckpt and tokenizer/"
            )
    training = tuple(f"stage1.{head}" for head in taming_vqgan.TRAINING)
    rest = {k: v for k, v in source.tensors.items() if not k.startswith(training)}
    arrays, kept = formats.loaded(TABLE, dataclasses.replace(source, tensors=rest))
    codes = _below(arrays)
    net = _vqgan.numbers(codes, source.place)
    size = _side(arrays["params/place_embedding"], net, source.place)
    stage1 = _vqgan.imported("vqvae", codes, {}, size=size, net=net)
    arrays |= {FROZEN + path: value for path, value in stage1.arrays.items()}
    vocab_size, width = arrays["params/text_embedding"].shape
    context = len(arrays["params/text_position_embedding"])
    tokenizer = _tokenizer(source, context, vocab_size)
    row_w = arrays["params/text_embedding"][tokenizer.pad]
    arrays[_PADS] = np.broadcast_to(row_w, (context, width))
    numbered = [re.match(r"params/block_(\d+)/", path) for path in arrays]
    task = {
        "name": TASK,
        "stage1": stage1.task["tokenizer"],
        "width": width,
        "depth": 1 + max(int(hit[1]) for hit in numbered if hit),
        "heads": max(1, width // _HEAD),
        "vocab_size": vocab_size,
        "context": context,
        "masks": "full",
        "places": "free",
        "mlp_ratio": arrays["params/block_0/fc/bias"].shape[0] / width,
        "init_style": "mindalle",
        "sampling": {"top_k": min(256, len(arrays["params/image_embedding"]))},
    }
    return formats.Model(task, stage1.image, tokenizer, arrays, kept)


def _below(arrays: formats.Arrays) -> dict[str, np.ndarray]:
    """The arrays of the frozen image tokenizer, by its own paths."""
    return {
        path.removeprefix(FROZEN): value
        for path, value in arrays.items()
        if path.startswith(FROZEN)
    }


def _side(place_nw: np.ndarray, net: Mapping, place: str) -> int:
    """Pixels a side of images that have as many tokens as there are places."""
    grid = math.isqrt(len(place_nw))
    if grid**2 != len(place_nw):
        raise UserError(
            f"{place}: pos_emb_img has {len(place_nw)} places, which make no square"
        )
    return grid * 2 ** (len(net["mult"]) - 1)


def _tokenizer(source: Source, context: int, vocab_size: int) -> pieces.PieceTokenizer:
    """minDALL-E's tokenizer: lower-cased BPE of characters, without marks."""
    folder = source.folder / "tokenizer"
    # vocab.json and merges.txt, whatever their sizes are called
    files = [str(path) for x in ("json", "txt") for path in folder.glob(f"bpe-*{x}")]
    if [pathlib.Path(path).suffix for path in files] != [".json", ".txt"]:
        raise UserError(
            f"{folder} has to hold minDALL-E's bpe-16k-vocab.json and "
            "bpe-16k-merges.txt: its text cannot be read without them"
        )
    try:
        engine = tokenizers.CharBPETokenizer.from_file(
            *files, unk_token=UNKNOWN, lowercase=True
        )
    except Exception as e:  # the library raises nothing narrower
        raise UserError(f"{folder}: not a byte-pair encoding ({e})") from e
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
    _fits(model)
    stage1 = {"name": "vqvae", "tokenizer": model.task["stage1"]}
    codes = formats.Model(stage1, model.image, None, _below(model.arrays))
    arrays = {
        path: value
        for path, value in model.arrays.items()
        if path != _PADS and not path.startswith(FROZEN)
    }
    exported = _vqgan.exported(codes).arrays
    arrays |= {FROZEN + path: value for path, value in exported.items()}
    tensors = formats.saved(TABLE, dataclasses.replace(model, arrays=arrays))
    stages = formats.split(tensors, *STAGES)
    bpe = json.loads(model.tokenizer.words)["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]]
    vocab = json.dumps(bpe["vocab"], ensure_ascii=False)
    return formats.Export(
        {f"{stage}_last.safetensors": part for stage, part in stages.items()},
        {
            "tokenizer/bpe-16k-vocab.json": vocab,
            "tokenizer/bpe-16k-merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        },
    )


def _fits(model: formats.Model) -> None:
    """UserError for parts that minDALL-E's code lacks."""
    task = model.task
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
    if not isinstance(model.tokenizer, pieces.PieceTokenizer):
        raise UserError("the text is not read by minDALL-E's tokenizer")
    row_w = model.arrays["params/text_embedding"][model.tokenizer.pad]
    if (model.arrays[_PADS] != row_w).any():
        raise UserError(
            "the vectors of padding were trained on; minDALL-E reads one token's "
            f"({PAD}) at every position: it has no place for them"
        )
