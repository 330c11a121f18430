"""Hugging Face's CLIPModel: config.json, model.safetensors, tokenizer and processor."""

import pathlib
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_config,
    _clip_tokenizer,
    _hugging_face,
    _reference,
)
from mmjax.convert.formats._rules import layer, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models.vit import ViT

ABOUT = "Hugging Face CLIPModel: a folder with config.json"
TASK = "clip"
# What transformers' config classes have where config.json leaves a key out.
_SHARED = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT = {
    **_SHARED,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
_VISION = {
    **_SHARED,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
TABLE = Table(
    *_hugging_face.RULES,
    Rule("vision_model.embeddings.class_embedding", "params/image/class_token"),
    *norm("vision_model.pre_layrnorm", "params/image/norm_pre"),
    *layer("visual_projection", "params/image_proj"),
    *layer("text_projection", "params/text_proj"),
    Rule("logit_scale", "params/logit_scale"),
    skip=_hugging_face.SKIP,
)


def detect(source: Source) -> bool:
    return _hugging_face.detect(source, "clip")


def to_mmjax(source: Source) -> formats.Model:
    text = _hugging_face.merged(source, "text_config", TEXT)
    vision = _hugging_face.merged(source, "vision_config", _VISION)
    return _hugging_face.imported(
        source,
        TABLE,
        configs=(text, vision),
        tokenizer=_tokenizer,
        embed_dim=_clip_config.typed(
            source.config_json, {"projection_dim": 512}, "config.json"
        )["projection_dim"],
    )


def _tokenizer(source: Source, context: int, vocab_size: int):
    own = _clip_tokenizer.of_folder(source, context, vocab_size)
    return own or _clip_tokenizer.clip(context, source)


def from_mmjax(model: formats.Model) -> formats.Export:
    dual, tokenizer = _clip_config.dual(model.task), model.tokenizer
    if not isinstance(dual.image, ViT) or dual.image.pool != "token":
        raise UserError("CLIPModel has a ViT with a class token: use --to open_clip")
    if dual.text.pool != "end" or dual.init_bias is not None:
        raise UserError("CLIPModel has no logit bias and pools at the end of a text")
    end = (tokenizer.vocab_size if tokenizer else model.task["vocab_size"]) - 1
    joint = {"projection_dim": dual.embed_dim}
    marks = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    return _hugging_face.exported(
        "clip",
        model,
        dual,
        table=TABLE,
        config=joint | {"logit_scale_init_value": 2.6592},
        text=joint | marks,
        vision=joint,
        tokenizer=_clip_tokenizer.hugging_face_files(tokenizer),
    )


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of transformers' model, opened from `folder`."""
    return _reference.hugging_face("CLIPModel", folder, batch)
