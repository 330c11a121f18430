"""What the formats of VQGAN's networks share.

Name tables, the networks' numbers read off the arrays' shapes, and our config of them.
Levels are numbered from the pixels on both sides in ours. taming-transformers does so
too; diffusers numbers its decoder's from the latents.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats._rules import layer, norm
from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import CONV, DENSE, POINT
from mmjax.errors import UserError

SIZE = 256  # pixels of released models; the networks are convolutional and take others
VARIANCE = "likelihood/variance"  # of ours alone
# What the parts of an attention are called: norm, queries, keys, values, output
TAMING = ("norm", "q", "k", "v", "proj_out")
DIFFUSERS = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
DIFFUSERS_OLD = ("group_norm", "query", "key", "value", "proj_attn")


def _attention(theirs: str, ours: str, names: Sequence[str]) -> list[Rule]:
    """A norm and the four maps: 1x1 convolutions in taming, dense in diffusers."""
    form = POINT if names == TAMING else DENSE
    first, *parts, out = (f"{theirs}.{name}" for name in names)
    return [
        *norm(first, f"{ours}/norm"),
        *layer(parts, f"{ours}/attention/qkv", form),
        *layer(out, f"{ours}/attention/out", form),
    ]


def _block(theirs: str, ours: str, skip: str) -> list[Rule]:
    """A residual block; `skip` is what its 1x1 map is called."""
    rules = layer(f"{theirs}.{skip}", f"{ours}/skip", POINT)
    for i in (1, 2):
        rules += norm(f"{theirs}.norm{i}", f"{ours}/norm_{i}")
        rules += layer(f"{theirs}.conv{i}", f"{ours}/conv_{i}", CONV)
    return rules


def _ends(side: str, out: str) -> list[Rule]:
    """The first and last layers of a network; `out` is the last norm."""
    return [
        *layer(f"{side}.conv_in", f"params/{side}/conv_in", CONV),
        *norm(f"{side}.{out}", f"params/{side}/norm"),
        *layer(f"{side}.conv_out", f"params/{side}/conv_out", CONV),
    ]


# The 1x1 maps to codes and back
_POINTS = [
    *layer("quant_conv", "params/encoder/point", POINT),
    *layer("post_quant_conv", "params/decoder/point", POINT),
]


def taming() -> list[Rule]:
    """Both networks as in taming-transformers and CompVis' latent diffusion."""
    rules = [
        *layer("encoder.down.{l}.downsample.conv", "params/encoder/down_{l+1}", CONV),
        *layer("decoder.up.{l}.upsample.conv", "params/decoder/up_{l}", CONV),
        *_POINTS,
    ]
    for side, levels in (("encoder", "down"), ("decoder", "up")):
        level, middle, ours = f"{side}.{levels}.{{l}}", f"{side}.mid", f"params/{side}"
        own, skip = f"{ours}/level_{{l}}", "nin_shortcut"
        rules += _ends(side, "norm_out")
        rules += _block(f"{level}.block.{{i}}", f"{own}_block_{{i}}", skip)
        rules += _attention(f"{level}.attn.{{i}}", f"{own}_attention_{{i}}", TAMING)
        rules += _block(f"{middle}.block_{{i+1}}", f"{ours}/middle_block_{{i}}", skip)
        rules += _attention(f"{middle}.attn_1", f"{ours}/middle_attention", TAMING)
    return rules


def diffusers(levels: int, names: Sequence[str]) -> list[Rule]:
    """Both networks as in diffusers; `names` of the attentions' parts."""
    rules, skip = list(_POINTS), "conv_shortcut"
    for side, places in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        middle, ours = f"{side}.mid_block", f"params/{side}"
        rules += _ends(side, "conv_norm_out")
        rules += _block(f"{middle}.resnets.{{i}}", f"{ours}/middle_block_{{i}}", skip)
        rules += _attention(f"{middle}.attentions.0", f"{ours}/middle_attention", names)
        for level in range(levels):
            place = level if side == "encoder" else levels - 1 - level
            theirs, own = f"{side}.{places}.{place}", f"{ours}/level_{level}"
            rules += _block(f"{theirs}.resnets.{{i}}", f"{own}_block_{{i}}", skip)
            parts = f"{theirs}.attentions.{{i}}", f"{own}_attention_{{i}}"
            rules += _attention(*parts, names)
            if side == "encoder":
                scaled = f"{theirs}.downsamplers.0.conv", f"{ours}/down_{level + 1}"
            else:
                scaled = f"{theirs}.upsamplers.0.conv", f"{ours}/up_{level}"
            rules += layer(*scaled, CONV)
    return rules


def numbers(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """The fields of `VqganNet` (less groups) that arrays by path have the shapes of.

    Raises:
      UserError: the two networks are not each other's mirror.
    """
    encoder, decoder = (_levels(arrays, side, where) for side in ("encoder", "decoder"))
    if encoder != decoder:
        raise UserError(
            f"{where}: (widths, blocks, attention) of encoder and decoder differ: "
            f"{encoder} and {decoder}"
        )
    widths, depth, attended = encoder
    base = arrays["params/encoder/conv_in/bias"].shape[0]
    if any(width % base for _, width in widths):
        raise UserError(f"{where}: widths {widths} are not multiples of {base}")
    return {
        "width": base,
        "mult": tuple(width // base for _, width in widths),
        "depth": depth,
        "attention": attended,
        "middle": "params/encoder/middle_attention/norm/scale" in arrays,
        "hidden": arrays["params/decoder/conv_in/kernel"].shape[2],
        "points": "params/decoder/point/kernel" in arrays,
    }


def _levels(
    arrays: Mapping[str, np.ndarray], side: str, where: str
) -> tuple[tuple, int, tuple]:
    """(level and width, blocks in a level, levels with attention) of a network."""
    blocks: dict[int, int] = {}
    widths: dict[int, int] = {}
    attended = set()
    for path, value in arrays.items():
        hit = re.match(rf"params/{side}/level_(\d+)_(block|attention)_(\d+)/", path)
        if hit is None:
            continue
        level, i = int(hit[1]), int(hit[3])
        if hit[2] == "attention":
            attended.add(level)
            continue
        blocks[level] = max(blocks.get(level, 0), i + 1)
        if path.endswith("conv_2/bias"):
            widths[level] = value.shape[0]
    depths = {count - (side == "decoder") for count in blocks.values()}
    if len(depths) != 1:
        raise UserError(f"{where}: {side} has levels of {depths or 'no'} blocks")
    return tuple(sorted(widths.items())), depths.pop(), tuple(sorted(attended))


def image_field(size: int) -> dict[str, Any]:
    """The image field: training resizes the short side and crops the centre."""
    return {"size": size, "mode": "crop", "method": "bilinear"}


def imported(
    kind: str, arrays: dict[str, np.ndarray], kept: Mapping, *, size: int, net: Mapping
) -> formats.Model:
    """Our model of a tokenizer: `kind` is "vqvae" or "gumbel_vq"."""
    vocab_size, code_dim = arrays["params/codebook"].shape
    spec = {
        "kind": kind,
        "image_size": size,
        "vocab_size": vocab_size,
        "code_dim": code_dim,
        "net": {"kind": "vqgan", **net},
    }
    task: dict[str, Any] = {"name": kind, "tokenizer": spec}
    if kind == "vqvae":
        spec["ema"] = False
        task |= {"kmeans": 0, "revive_below": 0.0}
    arrays = arrays | {VARIANCE: np.ones((), np.float32)}
    return formats.Model(task, image_field(size), None, arrays, kept)


def exported(model: formats.Model, *, groups: int | None = 32) -> formats.Model:
    """A tokenizer without the variables of ours alone.

    Raises:
      UserError: it has other networks than VQGAN's, other groups, or an EMA codebook.
    """
    spec = model.task["tokenizer"]
    kind, have = spec["net"].get("kind", "conv"), spec["net"].get("groups", 32)
    if kind != "vqgan":
        raise UserError(
            f"this tokenizer's networks are of kind {kind!r}: only 'vqgan' fits"
        )
    if groups not in (None, have):
        raise UserError(f"{have} groups in a norm: this format has {groups} always")
    if spec.get("ema"):
        raise UserError("a codebook kept by moving averages: the format has none")
    arrays = {k: v for k, v in model.arrays.items() if k != VARIANCE}
    return dataclasses.replace(model, arrays=arrays)
