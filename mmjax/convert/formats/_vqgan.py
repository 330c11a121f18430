"""Name tables of VQGAN's networks, and their numbers read off the arrays' shapes.

Levels are numbered from the pixels on both sides here. taming-transformers does so too;
diffusers numbers its decoder's from the latents.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.convert.formats._rules import norm
from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import CONV, DENSE, POINT, Form, joined
from mmjax.errors import UserError

# What the parts of an attention are called: norm, queries, keys, values, output
TAMING = ("norm", "q", "k", "v", "proj_out")
DIFFUSERS = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
DIFFUSERS_OLD = ("group_norm", "query", "key", "value", "proj_attn")


def conv(theirs: str, ours: str, form: Form = CONV) -> list[Rule]:
    """A convolution's kernel and bias."""
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", form),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]


def attention(theirs: str, ours: str, names: Sequence[str]) -> list[Rule]:
    """A norm and the four maps: 1x1 convolutions in taming, dense in diffusers."""
    form = POINT if tuple(names) == TAMING else DENSE
    first, *parts, out = (f"{theirs}.{name}" for name in names)
    qkv = f"{ours}/attention/qkv"
    return [
        *norm(first, f"{ours}/norm"),
        Rule([f"{p}.weight" for p in parts], f"{qkv}/kernel", joined(3, form)),
        Rule([f"{p}.bias" for p in parts], f"{qkv}/bias", joined(3)),
        *conv(out, f"{ours}/attention/out", form),
    ]


def block(theirs: str, ours: str, skip: str) -> list[Rule]:
    """A residual block; `skip` is what its 1x1 map is called."""
    return [
        *norm(f"{theirs}.norm1", f"{ours}/norm_1"),
        *norm(f"{theirs}.norm2", f"{ours}/norm_2"),
        *conv(f"{theirs}.conv1", f"{ours}/conv_1"),
        *conv(f"{theirs}.conv2", f"{ours}/conv_2"),
        *conv(f"{theirs}.{skip}", f"{ours}/skip", POINT),
    ]


def taming() -> list[Rule]:
    """Both networks as in taming-transformers and CompVis' latent diffusion."""
    rules = []
    for side, levels in (("encoder", "down"), ("decoder", "up")):
        ours = f"params/{side}"
        level = f"{side}.{levels}.{{l}}"
        rules += conv(f"{side}.conv_in", f"{ours}/conv_in")
        rules += block(
            f"{level}.block.{{i}}", f"{ours}/level_{{l}}_block_{{i}}", "nin_shortcut"
        )
        rules += attention(
            f"{level}.attn.{{i}}", f"{ours}/level_{{l}}_attention_{{i}}", TAMING
        )
        for i in (0, 1):
            theirs = f"{side}.mid.block_{i + 1}"
            rules += block(theirs, f"{ours}/middle_block_{i}", "nin_shortcut")
        rules += attention(f"{side}.mid.attn_1", f"{ours}/middle_attention", TAMING)
        rules += norm(f"{side}.norm_out", f"{ours}/norm")
        rules += conv(f"{side}.conv_out", f"{ours}/conv_out")
    rules += [
        Rule("encoder.down.{l}.downsample.conv.weight", _down("kernel"), CONV),
        Rule("encoder.down.{l}.downsample.conv.bias", _down("bias")),
    ]
    rules += conv("decoder.up.{l}.upsample.conv", "params/decoder/up_{l}")
    return rules + points()


def _down(leaf: str) -> str:
    return f"params/encoder/down_{{l+1}}/{leaf}"


def points() -> list[Rule]:
    """The 1x1 maps to codes and back."""
    return [
        *conv("quant_conv", "params/encoder/point", POINT),
        *conv("post_quant_conv", "params/decoder/point", POINT),
    ]


def diffusers(levels: int, names: Sequence[str]) -> list[Rule]:
    """Both networks as in diffusers; `names` of the attentions' parts."""
    rules = []
    for side, places in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        ours = f"params/{side}"
        rules += conv(f"{side}.conv_in", f"{ours}/conv_in")
        for i in (0, 1):
            theirs = f"{side}.mid_block.resnets.{i}"
            rules += block(theirs, f"{ours}/middle_block_{i}", "conv_shortcut")
        middle = f"{side}.mid_block.attentions.0"
        rules += attention(middle, f"{ours}/middle_attention", names)
        rules += norm(f"{side}.conv_norm_out", f"{ours}/norm")
        rules += conv(f"{side}.conv_out", f"{ours}/conv_out")
        for level in range(levels):
            place = level if side == "encoder" else levels - 1 - level
            theirs, own = f"{side}.{places}.{place}", f"{ours}/level_{level}"
            rules += block(
                f"{theirs}.resnets.{{i}}", f"{own}_block_{{i}}", "conv_shortcut"
            )
            rules += attention(
                f"{theirs}.attentions.{{i}}", f"{own}_attention_{{i}}", names
            )
            if side == "encoder":
                rules += conv(
                    f"{theirs}.downsamplers.0.conv", f"{ours}/down_{level + 1}"
                )
            else:
                rules += conv(f"{theirs}.upsamplers.0.conv", f"{ours}/up_{level}")
    return rules + points()


def numbers(arrays: Mapping[str, np.ndarray], where: str) -> dict:
    """The fields of `VqganNet` (less groups) that arrays by path have the shapes of.

    Raises:
      UserError: the two networks are not each other's mirror.
    """
    found = {}
    for side, more in (("encoder", 0), ("decoder", 1)):
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
        depths = {count - more for count in blocks.values()}
        if len(depths) != 1:
            raise UserError(f"{where}: {side} has levels of {depths or 'no'} blocks")
        found[side] = (
            tuple(sorted(widths.items())),
            depths.pop(),
            tuple(sorted(attended)),
        )
    if found["encoder"] != found["decoder"]:
        raise UserError(
            f"{where}: (widths, blocks, attention) of encoder and decoder differ: "
            f"{found['encoder']} and {found['decoder']}"
        )
    widths, depth, attended = found["encoder"]
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
