"""Hugging Face's CLIPModel: config.json, model.safetensors, tokenizer and processor."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _clip_config, _clip_tokenizer, _reference_clip
from mmjax.convert.formats._rules import HUGGING_FACE, blocks, dense, norm, patches
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.vit import ViT

ABOUT = "Hugging Face CLIPModel: a folder with config.json"
TASK = "clip"
ACTS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
# What transformers' config classes have where config.json leaves a key out.
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TABLE = Table(
    *patches("vision_model.embeddings.patch_embedding", "params/image/patches"),
    Rule("vision_model.embeddings.class_embedding", "params/image/class_token"),
    Rule(
        "vision_model.embeddings.position_embedding.weight",
        "params/image/position_embedding",
    ),
    *norm("vision_model.pre_layrnorm", "params/image/norm_pre"),
    *blocks("vision_model.encoder.layers", "params/image/transformer", HUGGING_FACE),
    *norm("vision_model.post_layernorm", "params/image/norm_post"),
    *dense("visual_projection", "params/image_proj"),
    Rule("text_model.embeddings.token_embedding.weight", "params/text/token_embedding"),
    Rule(
        "text_model.embeddings.position_embedding.weight",
        "params/text/position_embedding",
    ),
    *blocks("text_model.encoder.layers", "params/text/transformer", HUGGING_FACE),
    *norm("text_model.final_layer_norm", "params/text/norm_post"),
    *dense("text_projection", "params/text_proj"),
    Rule("logit_scale", "params/logit_scale"),
    skip=("*.position_ids",),
)


def detect(source: Source) -> bool:
    return _config(source).get("model_type") == "clip" and known(source.tensors) > 0


def known(keys: Iterable[str]) -> int:
    return TABLE.known(keys)


def _config(source: Source) -> Mapping[str, Any]:
    found = source.files.get("config.json", {})
    return found if isinstance(found, Mapping) else {}


def merged(theirs: Mapping[str, Any], key: str, defaults: Mapping[str, Any]) -> dict:
    """A tower's config with the defaults of its class.

    `text_config_dict`, which old files hold beside `text_config`, goes before it, as
    in transformers.
    """
    found = dict(defaults)
    for name in (key, f"{key}_dict"):
        found |= {k: v for k, v in (theirs.get(name) or {}).items() if k in defaults}
    return found


def tower(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that both towers of ours have, from those of a config."""
    return {
        "width": fields["hidden_size"],
        "depth": fields["num_hidden_layers"],
        "heads": fields["num_attention_heads"],
        "mlp_ratio": _clip_config.ratio(
            fields["intermediate_size"], fields["hidden_size"]
        ),
        "act": _clip_config.activation(fields["hidden_act"], ACTS, "hidden_act"),
        "eps": fields["layer_norm_eps"],
    }


def to_mmjax(source: Source) -> formats.Model:
    theirs = _config(source)
    text, vision = (
        merged(theirs, "text_config", _TEXT),
        merged(theirs, "vision_config", _VISION),
    )
    if vision["num_channels"] != 3:
        raise UserError(f"{source.place}: {vision['num_channels']} channels: 3 fit")
    arrays, kept = formats.loaded(TABLE, source)
    image, mean, std = preprocessing(source, vision["image_size"])
    context = text["max_position_embeddings"]
    words = _clip_tokenizer.of_folder(source, context, text["vocab_size"])
    task = _clip_config.task(
        {"kind": "vit", "patch": vision["patch_size"], **tower(vision)},
        {"kind": "transformer", **tower(text)},
        embed_dim=theirs.get("projection_dim", 512),
        vocab_size=text["vocab_size"],
        context=context,
        image_size=vision["image_size"],
        act=ACTS[text["hidden_act"]],
        mean=mean,
        std=std,
    )
    return formats.Model(
        task=task,
        image=image,
        tokenizer=words or _clip_tokenizer.clip(context, source),
        arrays=arrays,
        kept=kept,
    )


def preprocessing(source: Source, size: int) -> tuple[dict[str, Any], tuple, tuple]:
    """(the image field, mean, std) of preprocessor_config.json; CLIP's without one.

    Raises UserError for steps that ours have not.
    """
    found = source.files.get("preprocessor_config.json", {})
    found = found.get("image_processor", found)
    resize = found.get("size", size)
    crop = found.get("do_center_crop", True)
    side = resize.get("shortest_edge") if isinstance(resize, Mapping) else resize
    mode = "crop"
    if side is None and {resize.get("height"), resize.get("width")} == {size}:
        side, mode = size, "squash"
    if side != size or (mode == "crop" and not crop):
        raise UserError(
            f"{source.place}: images are resized to {resize} and then "
            f"{'cropped' if crop else 'not cropped'}, for a model of {size} px: only "
            "the short side to it and its centre, or both sides to it, fit"
        )
    image = {
        "size": size,
        "mode": mode,
        "method": _clip_config.method(found.get("resample", 3)),
    }
    if abs(found.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f"{source.place}: rescale_factor is not 1/255")
    mean = tuple(found.get("image_mean", presets.CLIP_MEAN))
    return image, mean, tuple(found.get("image_std", presets.CLIP_STD))


def from_mmjax(model: formats.Model) -> formats.Export:
    dual, task = _clip_config.dual(model.task), model.task
    if not isinstance(dual.image, ViT) or dual.image.pool != "token":
        raise UserError("CLIPModel has a ViT with a class token: use --to open_clip")
    if dual.text.pool != "end" or dual.init_bias is not None:
        raise UserError("CLIPModel has no logit bias and pools at the end of a text")
    end = _clip_tokenizer.end_id(task, model.tokenizer)
    config = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": dual.embed_dim,
        "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "clip_text_model",
            **numbers(dual.text),
            "vocab_size": dual.text.vocab_size,
            "max_position_embeddings": dual.text.context,
            "projection_dim": dual.embed_dim,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **numbers(dual.image),
            "image_size": dual.image.image_size,
            "patch_size": dual.image.patch,
            "projection_dim": dual.embed_dim,
        },
    }
    files, notes = _clip_tokenizer.hugging_face_files(model.tokenizer)
    files["config.json"] = json.dumps(config, indent=2)
    files["preprocessor_config.json"] = json.dumps(
        processor(model, "CLIPImageProcessor"), indent=2
    )
    tensors = formats.saved(TABLE, model)
    return formats.Export({"model.safetensors": tensors}, files, notes)


def numbers(tower: Any) -> dict[str, Any]:
    """What both towers' configs hold; undoes `tower`."""
    acts = {ours: theirs for theirs, ours in ACTS.items()}
    return {
        "hidden_size": tower.width,
        "intermediate_size": _clip_config.hidden(tower),
        "num_hidden_layers": tower.depth,
        "num_attention_heads": _clip_config.heads(tower),
        "hidden_act": _clip_config.activation(tower.act, acts, "act"),
        "layer_norm_eps": tower.eps,
    }


def processor(model: formats.Model, kind: str) -> dict[str, Any]:
    """preprocessor_config.json of the image field and the task's mean and std."""
    size, squash = model.image["size"], model.image["mode"] == "squash"
    whole = {"height": size, "width": size}
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": whole if squash else {"shortest_edge": size},
        "resample": _clip_config.resample(model.image),
        "do_center_crop": not squash,
        "crop_size": whole,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.task["mean"]),
        "image_std": list(model.task["std"]),
        "do_convert_rgb": True,
    }


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of transformers' model, opened from `folder`."""
    return _reference_clip.hugging_face("CLIPModel", folder, batch)
