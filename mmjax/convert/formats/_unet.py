"""Names of Stable Diffusion's UNet, as in diffusers and in CompVis' code; its numbers.

Levels are numbered from the finest on both ways in ours. diffusers numbers those on the
way up from the coarsest; CompVis numbers blocks, each of up to three parts.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert.formats._rules import layer, norm
from mmjax.convert.name_table import Rule
from mmjax.convert.transforms import CONV, DENSE, POINT, Form
from mmjax.errors import UserError
from mmjax.models.unet import Numbers

NET = "params/net"
CLASS = "UNet2DConditionModel"
# What a residual block's parts are called: norms, convolutions, time, skip
_DIFFUSERS = ("norm1", "norm2", "conv1", "conv2", "time_emb_proj", "conv_shortcut")
_COMPVIS = ("in_layers.0", "out_layers.0", "in_layers.2", "out_layers.3")
_COMPVIS += ("emb_layers.1", "skip_connection")
# What config.json has to say, where it says something
_FIXED = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_type": "positional",
}


def _block(theirs: str, ours: str, names: Iterable[str]) -> list[Rule]:
    """A residual block."""
    norm_1, norm_2, conv_1, conv_2, time, skip = (f"{theirs}.{n}" for n in names)
    return [
        *norm(norm_1, f"{ours}/norm_1"),
        *norm(norm_2, f"{ours}/norm_2"),
        *layer(conv_1, f"{ours}/conv_1", CONV),
        *layer(conv_2, f"{ours}/conv_2", CONV),
        *layer(time, f"{ours}/time"),
        *layer(skip, f"{ours}/skip", POINT),
    ]


def _transformer(theirs: str, ours: str, form: Form) -> list[Rule]:
    """A transformer over a grid, whose parts have one name in both; form: its ends'."""
    inner, own = f"{theirs}.transformer_blocks.{{j}}", f"{ours}/block_{{j}}"
    rules = [
        *norm(f"{theirs}.norm", f"{ours}/norm"),
        *layer(f"{theirs}.proj_in", f"{ours}/proj_in", form),
        *layer(f"{theirs}.proj_out", f"{ours}/proj_out", form),
        *layer([f"{inner}.attn1.to_{x}" for x in "qkv"], f"{own}/attention/qkv"),
        *layer(f"{inner}.attn1.to_out.0", f"{own}/attention/out"),
        *layer(f"{inner}.attn2.to_q", f"{own}/cross/q"),
        *layer([f"{inner}.attn2.to_{x}" for x in "kv"], f"{own}/cross/kv"),
        *layer(f"{inner}.attn2.to_out.0", f"{own}/cross/out"),
        *layer(f"{inner}.ff.net.0.proj", f"{own}/fc"),
        *layer(f"{inner}.ff.net.2", f"{own}/proj"),
    ]
    for i in (1, 2, 3):
        rules += norm(f"{inner}.norm{i}", f"{own}/norm_{i}")
    return rules


def linear(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a transformer's ends are dense maps and not 1x1 convolutions."""
    return any(
        key.endswith(".proj_in.weight") and value.ndim == 2
        for key, value in tensors.items()
    )


def diffusers(levels: int, *, dense: bool) -> list[Rule]:
    """The UNet as in diffusers; dense: see `linear`."""
    form = DENSE if dense else POINT
    rules = [
        *layer("conv_in", f"{NET}/conv_in", CONV),
        *layer("time_embedding.linear_{i}", f"{NET}/time_{{i}}"),
        *norm("conv_norm_out", f"{NET}/norm"),
        *layer("conv_out", f"{NET}/conv_out", CONV),
        *_block("mid_block.resnets.{i}", f"{NET}/middle_block_{{i}}", _DIFFUSERS),
        *_transformer("mid_block.attentions.0", f"{NET}/middle_attention", form),
        *layer("down_blocks.{l}.downsamplers.0.conv", f"{NET}/down_{{l+1}}_conv", CONV),
    ]
    for level in range(levels):
        up, own = f"up_blocks.{levels - 1 - level}", f"{NET}/up_{level}"
        rules += layer(f"{up}.upsamplers.0.conv", f"{own}_conv", CONV)
        for theirs, ours in (
            (f"down_blocks.{level}", f"{NET}/down_{level}"),
            (up, own),
        ):
            rules += _block(
                f"{theirs}.resnets.{{i}}", f"{ours}_block_{{i}}", _DIFFUSERS
            )
            parts = f"{theirs}.attentions.{{i}}", f"{ours}_attention_{{i}}"
            rules += _transformer(*parts, form)
    return rules


def compvis(keys: Iterable[str], *, dense: bool) -> list[Rule]:
    """The UNet as in CompVis' code, whose blocks these keys number."""
    keys, form = list(keys), DENSE if dense else POINT
    hits = [re.match(r"input_blocks\.(\d+)\.0\.(op)?", key) for key in keys]
    blocks = {int(hit[1]) for hit in hits if hit}
    halves = {int(hit[1]) for hit in hits if hit and hit[2]}
    return compvis_rules(len(halves) + 1, min(halves, default=len(blocks)) - 1, form)


def compvis_rules(levels: int, depth: int, form: Form) -> list[Rule]:
    """The UNet as in CompVis' code; form: of a transformer's ends."""
    rules = [
        *layer("input_blocks.0.0", f"{NET}/conv_in", CONV),
        *layer("time_embed.0", f"{NET}/time_1"),
        *layer("time_embed.2", f"{NET}/time_2"),
        *norm("out.0", f"{NET}/norm"),
        *layer("out.2", f"{NET}/conv_out", CONV),
        *_block("middle_block.0", f"{NET}/middle_block_0", _COMPVIS),
        *_transformer("middle_block.1", f"{NET}/middle_attention", form),
        *_block("middle_block.2", f"{NET}/middle_block_1", _COMPVIS),
    ]
    for level in range(levels):
        if level:
            half = f"input_blocks.{level * (depth + 1)}.0.op"
            rules += layer(half, f"{NET}/down_{level}_conv", CONV)
        for i in range(depth):
            theirs, ours = (
                f"input_blocks.{level * (depth + 1) + 1 + i}",
                f"down_{level}",
            )
            rules += _block(f"{theirs}.0", f"{NET}/{ours}_block_{i}", _COMPVIS)
            rules += _transformer(f"{theirs}.1", f"{NET}/{ours}_attention_{i}", form)
        for i in range(depth + 1):
            number = (levels - 1 - level) * (depth + 1) + i
            theirs, ours = f"output_blocks.{number}", f"up_{level}"
            rules += _block(f"{theirs}.0", f"{NET}/{ours}_block_{i}", _COMPVIS)
            rules += _transformer(f"{theirs}.1", f"{NET}/{ours}_attention_{i}", form)
            # The last of a level doubles its side, after a transformer if there is one.
            for part in (1, 2) if i == depth and level else ():
                up = f"{theirs}.{part}.conv"
                rules += layer(up, f"{NET}/{ours}_conv", CONV)
    return rules


def numbers(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """The fields of `models.unet.Numbers`, less heads and groups, that arrays show.

    Raises UserError for widths that are no multiples of the first.
    """
    width = arrays[f"{NET}/conv_in/bias"].shape[0]
    depth: dict[int, int] = {}
    widths: dict[int, int] = {}
    attended, blocks = set(), 1
    for path, value in arrays.items():
        hit = re.match(rf"{NET}/down_(\d+)_(block|attention)_(\d+)/(.*)", path)
        if hit is None:
            continue
        level = int(hit[1])
        if hit[2] == "attention":
            attended.add(level)
            inner = re.match(r"block_(\d+)/", hit[4])
            blocks = max(blocks, int(inner[1]) + 1) if inner else blocks
        elif hit[4] == "conv_2/bias":
            widths[level] = value.shape[0]
            depth[level] = max(depth.get(level, 0), int(hit[3]) + 1)
    sizes = [widths[level] for level in sorted(widths)]
    if len(set(depth.values())) != 1 or any(size % width for size in sizes):
        raise UserError(
            f"{where}: levels of widths {sizes} and {list(depth.values())} blocks: "
            f"only multiples of the first width, {width}, and equal numbers fit"
        )
    return {
        "width": width,
        "mult": tuple(size // width for size in sizes),
        "depth": depth[0],
        "attention": tuple(sorted(attended)),
        "blocks": blocks,
    }


def channels(arrays: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """(of the rows that come in, of those that go out, of the context)."""
    kv = [v for k, v in arrays.items() if k.endswith("cross/kv/kernel")]
    conv_in, conv_out = (
        arrays[f"{NET}/{name}/kernel"] for name in ("conv_in", "conv_out")
    )
    return conv_in.shape[2], conv_out.shape[3], kv[0].shape[0] if kv else 0


def of_config(
    theirs: Mapping[str, Any], found: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Heads and groups of a config.json (`theirs`), for the numbers that arrays show.

    Raises UserError for parts that ours have not.
    """
    for key, value in _FIXED.items():
        if theirs.get(key, value) != value:
            raise UserError(f"{where}: {key} is {theirs[key]!r}: only {value!r} fits")
    levels = len(found["mult"])
    # diffusers calls the number of heads their width, and keeps to it
    said = theirs.get("num_attention_heads") or theirs.get("attention_head_dim", 8)
    each = [said] * levels if isinstance(said, int) else list(said)
    widths = [found["width"] * mult for mult in found["mult"]]
    own: dict[str, Any] = {"groups": theirs.get("norm_num_groups", 32)}
    if len(set(each)) == 1:
        return own | {"heads": each[0]}
    head = widths[0] // each[0]
    if len(each) != levels or any(
        heads * head != width for heads, width in zip(each, widths, strict=True)
    ):
        raise UserError(
            f"{where}: {each} heads of levels of widths {widths}: equal numbers of "
            "heads fit, or heads of one width"
        )
    return own | {"head_width": head}


def config(net: Numbers, *, side: int, channels: int, context: int) -> dict[str, Any]:
    """What diffusers' config.json says of a UNet.

    Args:
      side, channels: of the rows. context: its width.
    """
    attended = [level in net.attention for level in range(len(net.mult))]
    heads = [net.heads_at(level) for level in range(len(net.mult))]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attended[::-1]]
    return {
        "_class_name": CLASS,
        **_FIXED,
        "sample_size": side,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": [
            "CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended
        ],
        "up_block_types": up,
        "block_out_channels": [net.width * mult for mult in net.mult],
        "layers_per_block": net.depth,
        "transformer_layers_per_block": net.blocks,
        "norm_num_groups": net.groups,
        "cross_attention_dim": context,
        "attention_head_dim": heads if net.head_width else net.heads,
    }
