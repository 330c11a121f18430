"""OpenAI's CLIP: the released `.pt` (TorchScript) or its state dict.

Sizes are not in the file: they follow from the arrays' shapes, as in the original's
`build_model`. The activation is QuickGELU in all of them.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _clip_config, _clip_tokenizer, _reference
from mmjax.convert.formats._rules import OPEN_CLIP, blocks, layer, norm
from mmjax.convert.formats._rules import resnet as resnet_rules
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import PATCHES, SAME, Form
from mmjax.errors import UserError
from mmjax.models.resnet import ResNet

ABOUT = "OpenAI CLIP: ViT-*.pt and RN*.pt, state dicts"
TASK = "clip"
RESNET = "visual.attnpool.c_proj.weight"  # a key of models with a ResNet
COUNTERS = "*.num_batches_tracked"  # a batch norm's, which nothing reads
MASK = "attn_mask"  # a constant of the causal text tower, in some archives
_FACTS = ("input_resolution", "context_length", "vocab_size")


def image_rules(resnet: bool) -> list[Rule]:
    """`visual.*` of OpenAI and open_clip. Both kinds of tower have a `conv1`."""
    if resnet:
        return [
            *resnet_rules("visual", "params/image", "batch_stats/image"),
            *layer("visual.attnpool.c_proj", "params/image_proj"),
        ]
    return [
        *layer("visual.conv1", "params/image/patches", PATCHES),
        Rule("visual.class_embedding", "params/image/class_token"),
        Rule("visual.positional_embedding", "params/image/position_embedding"),
        *norm("visual.ln_pre", "params/image/norm_pre"),
        *blocks("visual.transformer.resblocks", "params/image/transformer", OPEN_CLIP),
        *norm("visual.ln_post", "params/image/norm_post"),
        Rule("visual.proj", "params/image_proj/kernel"),
    ]


def text_rules(prefix: str = "", scalar: Form = SAME) -> list[Rule]:
    """The text tower and the logits' scale and bias of OpenAI and open_clip."""
    return [
        Rule(f"{prefix}token_embedding.weight", "params/text/token_embedding"),
        Rule(f"{prefix}positional_embedding", "params/text/position_embedding"),
        *blocks(f"{prefix}transformer.resblocks", "params/text/transformer", OPEN_CLIP),
        *norm(f"{prefix}ln_final", "params/text/norm_post"),
        Rule("logit_scale", "params/logit_scale", scalar),
        Rule("logit_bias", "params/logit_bias", scalar),
    ]


def table(keys: Iterable[str]) -> Table:
    return Table(
        *image_rules(RESNET in keys),
        *text_rules(),
        Rule("text_projection", "params/text_proj/kernel"),
        skip=(COUNTERS, f"*{MASK}", *_FACTS),
    )


def detect(source: Source) -> bool:
    """The facts that TorchScript archives carry tell them from open_clip's."""
    return {*_FACTS, "visual.conv1.weight", "text_projection"} <= set(source.tensors)


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that a pattern's group matches in the keys."""
    numbers = [int(hit[1]) for key in keys if (hit := re.match(pattern, key))]
    return max(numbers, default=-1) + 1


def _image(source: Source) -> tuple[dict[str, Any], int]:
    """The image tower's fields and its image size, from shapes."""
    arrays = source.tensors
    if RESNET in arrays:
        width = arrays["visual.layer1.0.conv1.weight"].shape[0]
        depths = [_count(arrays, rf"visual\.layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
        cells = arrays["visual.attnpool.positional_embedding"].shape[0] - 1
        size = round(cells**0.5) * 32
        return {"kind": "resnet", "depths": tuple(depths), "width": width}, size
    width, _, patch, _ = arrays["visual.conv1.weight"].shape
    depth = _count(arrays, r"visual\.transformer\.resblocks\.(\d+)\.")
    cells = arrays["visual.positional_embedding"].shape[0] - 1
    tower = {"kind": "vit", "width": width, "depth": depth, "patch": patch}
    return tower, round(cells**0.5) * patch


def to_mmjax(source: Source) -> formats.Model:
    held = {k: v for k, v in source.tensors.items() if not k.endswith(MASK)}
    source = dataclasses.replace(source, tensors=held)
    arrays, kept = formats.loaded(table(held), source)
    tower = ("text/token_embedding", "text/position_embedding", "text_proj/kernel")
    missing = [path for name in tower if (path := f"params/{name}") not in arrays]
    if missing:
        raise UserError(f"{source.place}: has no text tower: {min(missing)}")
    vocab_size, width = arrays["params/text/token_embedding"].shape
    context = arrays["params/text/position_embedding"].shape[0]
    image, size = _image(source)
    depth = _count(source.tensors, r"transformer\.resblocks\.(\d+)\.")
    task = _clip_config.task(
        image,
        {"width": width, "depth": depth},
        embed_dim=arrays["params/text_proj/kernel"].shape[1],
        vocab_size=vocab_size,
        context=context,
        image_size=size,
        act="quick_gelu",
    )
    return formats.Model(
        task=task,
        image={"size": size, "mode": "crop", "method": "pil_bicubic"},
        tokenizer=_clip_tokenizer.clip(context, source),
        arrays=arrays,
        kept=kept,
    )


def from_mmjax(model: formats.Model) -> formats.Export:
    dual = _clip_config.dual(model.task)
    fields = {
        "image heads": (_clip_config.heads(dual.image), dual.image.features // 64),
        "text heads": (_clip_config.heads(dual.text), dual.text.width // 64),
        "text pool": (dual.text.pool, "end"),
        "text projection bias": (dual.text.project_bias, False),
        "logit bias": (dual.init_bias, None),
        "image pool": (getattr(dual.image, "pool", "token"), "token"),
    }
    for side, tower in (("image", dual.image), ("text", dual.text)):
        if not isinstance(tower, ResNet):
            fields |= {
                f"{side} act": (tower.act, "quick_gelu"),
                f"{side} eps": (tower.eps, 1e-5),
                f"{side} mlp_ratio": (tower.mlp_ratio, 4.0),
            }
    for name, (value, legal) in fields.items():
        if value != legal:
            raise UserError(
                f"{name} is {value}: OpenAI's code knows {legal} alone; use --to "
                "open_clip or hf_clip"
            )
    notes = ()
    if (tuple(model.task["mean"]), tuple(model.task["std"])) != _clip_config.CLIP:
        notes = ("its code normalises by CLIP's mean and std, this model by others",)
    keys = {RESNET} if isinstance(dual.image, ResNet) else {}
    tensors = formats.saved(table(keys), model)
    files = _clip_tokenizer.bpe_file(model.tokenizer)
    return formats.Export({"model.pt": tensors}, files, notes)


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of OpenAI's model, as open_clip builds it from the state dict."""
    import open_clip
    import torch

    state = torch.load(folder / "model.pt", weights_only=True)
    build = open_clip.openai.build_model_from_openai_state_dict
    model = build(dict(state), quick_gelu=True).float().eval()
    # It rounds to half precision as it builds: the same weights again, unrounded.
    model.load_state_dict({k: v for k, v in state.items() if k not in _FACTS})
    return _reference.open_clip(model, batch, _clip_config.CLIP)
