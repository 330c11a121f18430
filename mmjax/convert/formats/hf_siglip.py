"""Hugging Face's SiglipModel: config.json, model.safetensors, tokenizer.json.

SigLIP 2 of fixed resolution has the same layout; its NaFlex models have another.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_config,
    _hugging_face,
    _reference,
    _siglip_tokenizer,
)
from mmjax.convert.formats._rules import PACKED, layer, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import VECTOR, squeezed
from mmjax.errors import UserError

ABOUT = "Hugging Face SiglipModel: a folder with config.json and tokenizer.json"
TASK = "clip"
_SHARED = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_TEXT = {
    **_SHARED,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
    "projection_size": None,
}
_VISION = {
    **_SHARED,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "vision_use_head": True,
}
_HEAD, _OURS = "vision_model.head", "params/image/head"
TABLE = Table(
    *_hugging_face.RULES,
    Rule(f"{_HEAD}.probe", f"{_OURS}/probe", squeezed(2)),
    *layer(f"{_HEAD}.attention.in_proj", f"{_OURS}/qkv", ends=PACKED),
    *layer(f"{_HEAD}.attention.out_proj", f"{_OURS}/out"),
    *norm(f"{_HEAD}.layernorm", f"{_OURS}/norm"),
    *layer(f"{_HEAD}.mlp.fc1", f"{_OURS}/mlp/fc"),
    *layer(f"{_HEAD}.mlp.fc2", f"{_OURS}/mlp/proj"),
    *layer("text_model.head", "params/text_proj"),
    Rule("logit_scale", "params/logit_scale", VECTOR),
    Rule("logit_bias", "params/logit_bias", VECTOR),
    skip=_hugging_face.SKIP,
)
_TOWERS = {"causal": False, "pool": "last", "project_bias": True}, {"pool": "map"}


def detect(source: Source) -> bool:
    return _hugging_face.detect(source, "siglip")


def to_mmjax(source: Source) -> formats.Model:
    text = _hugging_face.merged(source, "text_config", _TEXT)
    vision = _hugging_face.merged(source, "vision_config", _VISION)
    width = vision["hidden_size"]
    if not vision["vision_use_head"]:
        raise UserError(f"{source.place}: its image tower has no pooling head")
    if (text["projection_size"] or text["hidden_size"]) != width:
        raise UserError(
            f"{source.place}: the text's projection_size {text['projection_size']} and "
            f"the image's hidden_size {width} differ: the towers do not meet"
        )
    return _hugging_face.imported(
        source,
        TABLE,
        configs=(text, vision),
        towers=_TOWERS,
        default=("squash", _clip_config.HALF),
        tokenizer=_siglip_tokenizer.of_folder,
        embed_dim=width,
        sigmoid=True,
    )


def from_mmjax(model: formats.Model) -> formats.Export:
    dual = _clip_config.dual(model.task)
    for tower, fields in zip((dual.text, dual.image), _TOWERS, strict=True):
        if any(getattr(tower, name, None) != value for name, value in fields.items()):
            raise UserError(
                "SiglipModel has a pooled ViT (image.pool map) and a text tower "
                "without a causal mask (causal False, pool last, project_bias True): "
                "use --to hf_clip"
            )
    if dual.init_bias is None:
        raise UserError("SiglipModel has a logit bias: loss_name sigmoid makes one")
    return _hugging_face.exported(
        "siglip",
        model,
        dual,
        table=TABLE,
        config={},
        text={"projection_size": dual.embed_dim},
        vision={},
        tokenizer=_siglip_tokenizer.hugging_face_files(model.tokenizer),
    )


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of transformers' model, opened from `folder`."""
    return _reference.hugging_face("SiglipModel", folder, batch)
