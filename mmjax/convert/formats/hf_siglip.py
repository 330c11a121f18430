"""Hugging Face's SiglipModel: config.json, model.safetensors, tokenizer.json.

SigLIP 2 of fixed resolution has the same layout; its NaFlex models have another.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_config,
    _reference_clip,
    _siglip_tokenizer,
    hf_clip,
)
from mmjax.convert.formats._rules import (
    HUGGING_FACE,
    blocks,
    dense,
    norm,
    packed,
    patches,
)
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
_HEAD = "vision_model.head"
TABLE = Table(
    *patches("vision_model.embeddings.patch_embedding", "params/image/patches"),
    Rule(
        "vision_model.embeddings.position_embedding.weight",
        "params/image/position_embedding",
    ),
    *blocks("vision_model.encoder.layers", "params/image/transformer", HUGGING_FACE),
    *norm("vision_model.post_layernorm", "params/image/norm_post"),
    Rule(f"{_HEAD}.probe", "params/image/head/probe", squeezed(2)),
    *packed(f"{_HEAD}.attention", "params/image/head/qkv"),
    *dense(f"{_HEAD}.attention.out_proj", "params/image/head/out"),
    *norm(f"{_HEAD}.layernorm", "params/image/head/norm"),
    *dense(f"{_HEAD}.mlp.fc1", "params/image/head/mlp/fc"),
    *dense(f"{_HEAD}.mlp.fc2", "params/image/head/mlp/proj"),
    Rule("text_model.embeddings.token_embedding.weight", "params/text/token_embedding"),
    Rule(
        "text_model.embeddings.position_embedding.weight",
        "params/text/position_embedding",
    ),
    *blocks("text_model.encoder.layers", "params/text/transformer", HUGGING_FACE),
    *norm("text_model.final_layer_norm", "params/text/norm_post"),
    *dense("text_model.head", "params/text_proj"),
    Rule("logit_scale", "params/logit_scale", VECTOR),
    Rule("logit_bias", "params/logit_bias", VECTOR),
    skip=("*.position_ids",),
)


def detect(source: Source) -> bool:
    found = source.files.get("config.json", {})
    mine = isinstance(found, Mapping) and found.get("model_type") == "siglip"
    return mine and known(source.tensors) > 0


def known(keys: Iterable[str]) -> int:
    return TABLE.known(keys)


def to_mmjax(source: Source) -> formats.Model:
    config = source.files["config.json"]
    text = hf_clip.merged(config, "text_config", _TEXT)
    vision = hf_clip.merged(config, "vision_config", _VISION)
    width = vision["hidden_size"]
    if not vision["vision_use_head"] or vision["num_channels"] != 3:
        raise UserError(f"{source.place}: without a pooling head, or not RGB")
    if (text["projection_size"] or text["hidden_size"]) != width:
        raise UserError(
            f"{source.place}: the text's projection_size {text['projection_size']} and "
            f"the image's hidden_size {width} differ: the towers do not meet"
        )
    arrays, kept = formats.loaded(TABLE, source)
    image, mean, std = hf_clip.preprocessing(source, vision["image_size"])
    if "preprocessor_config.json" not in source.files:
        image, mean, std = (
            image | {"mode": "squash"},
            _clip_config.HALF,
            _clip_config.HALF,
        )
    context = text["max_position_embeddings"]
    task = _clip_config.task(
        {
            "kind": "vit",
            "pool": "map",
            "patch": vision["patch_size"],
            **hf_clip.tower(vision),
        },
        {
            "kind": "transformer",
            "causal": False,
            "pool": "last",
            "project_bias": True,
            **hf_clip.tower(text),
        },
        embed_dim=width,
        vocab_size=text["vocab_size"],
        context=context,
        image_size=vision["image_size"],
        act=hf_clip.ACTS[text["hidden_act"]],
        sigmoid=True,
        mean=mean,
        std=std,
    )
    return formats.Model(
        task=task,
        image=image,
        tokenizer=_siglip_tokenizer.of_folder(source, context, text["vocab_size"]),
        arrays=arrays,
        kept=kept,
    )


def from_mmjax(model: formats.Model) -> formats.Export:
    dual = _clip_config.dual(model.task)
    image, text = dual.image, dual.text
    fits = getattr(image, "pool", "") == "map" and text.pool == "last"
    if not (fits and not text.causal and text.project_bias):
        raise UserError(
            "SiglipModel has a pooled ViT (image.pool map) and a text tower without a "
            "causal mask (causal False, pool last, project_bias True): use --to hf_clip"
        )
    if dual.init_bias is None:
        raise UserError("SiglipModel has a logit bias: loss_name sigmoid makes one")
    config = {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "text_config": {
            "model_type": "siglip_text_model",
            **hf_clip.numbers(text),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context,
            "projection_size": dual.embed_dim,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            **hf_clip.numbers(image),
            "image_size": image.image_size,
            "patch_size": image.patch,
        },
    }
    files, notes = _siglip_tokenizer.hugging_face_files(model.tokenizer)
    files["config.json"] = json.dumps(config, indent=2)
    processor = hf_clip.processor(model, "SiglipImageProcessor")
    files["preprocessor_config.json"] = json.dumps(processor, indent=2)
    return formats.Export(
        {"model.safetensors": formats.saved(TABLE, model)}, files, notes
    )


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of transformers' model, opened from `folder`."""
    return _reference_clip.hugging_face("SiglipModel", folder, batch)
