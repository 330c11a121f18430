"""What transformers' CLIPModel and SiglipModel share: names, configs, processors."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from mmjax.convert import formats
from mmjax.convert.formats import _clip_config
from mmjax.convert.formats._rules import HUGGING_FACE, blocks, layer, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import PATCHES
from mmjax.data.tokenizers.base import Tokenizer
from mmjax.errors import UserError
from mmjax.models.dual_encoder import DualEncoder

_IMAGE, _TEXT = "vision_model.embeddings", "text_model.embeddings"
RULES = [
    *layer(f"{_IMAGE}.patch_embedding", "params/image/patches", PATCHES),
    Rule(f"{_IMAGE}.position_embedding.weight", "params/image/position_embedding"),
    *blocks("vision_model.encoder.layers", "params/image/transformer", HUGGING_FACE),
    *norm("vision_model.post_layernorm", "params/image/norm_post"),
    Rule(f"{_TEXT}.token_embedding.weight", "params/text/token_embedding"),
    Rule(f"{_TEXT}.position_embedding.weight", "params/text/position_embedding"),
    *blocks("text_model.encoder.layers", "params/text/transformer", HUGGING_FACE),
    *norm("text_model.final_layer_norm", "params/text/norm_post"),
]
SKIP = ("*.position_ids",)
_ACTS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
_FIELDS = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "layer_norm_eps": "eps",
}
_KINDS = {"clip": "CLIP", "siglip": "Siglip"}


def detect(source: Source, kind: str) -> bool:
    """Whether it is of this kind; other libraries' weights may lie beside them."""
    mine = any(key.startswith("vision_model.") for key in source.tensors)
    return mine and source.config_json.get("model_type") == kind


def merged(source: Source, key: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's config with the defaults of its class.

    `text_config_dict`, which old files hold beside `text_config`, goes before it, as
    in transformers.
    """
    config = dict(defaults)
    for name in (key, f"{key}_dict"):
        own = source.config_json.get(name) or {}
        config |= {k: v for k, v in own.items() if k in defaults}
    return config


def _tower(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that both towers of ours have, from a tower's config."""
    ratio = _clip_config.ratio(config["intermediate_size"], config["hidden_size"])
    return {
        **{ours: config[theirs] for theirs, ours in _FIELDS.items()},
        "mlp_ratio": ratio,
        "act": _clip_config.translated(config["hidden_act"], _ACTS, "hidden_act"),
    }


def _numbers(tower: Any) -> dict[str, Any]:
    """What the configs of both towers hold; undoes `_tower`."""
    acts = {ours: theirs for theirs, ours in _ACTS.items()}
    return {
        **{theirs: getattr(tower, ours) for theirs, ours in _FIELDS.items()},
        "num_attention_heads": _clip_config.heads(tower),
        "intermediate_size": _clip_config.hidden(tower),
        "hidden_act": _clip_config.translated(tower.act, acts, "act"),
    }


def imported(
    source: Source,
    table: Table,
    *,
    configs: tuple[dict[str, Any], dict[str, Any]],
    towers: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    processor: tuple[str, tuple] = ("crop", _clip_config.CLIP),
    tokenizer: Callable[[Source, int, int], Tokenizer],
    **task: Any,
) -> formats.Model:
    """Our model of a folder.

    Args:
      configs: of the text tower and of the image tower, complete.
      towers: fields of ours that the configs leave out, of text and image.
      processor: the resize mode, mean and std where there is no processor's file.
      tokenizer: (source, context, vocab_size) -> the folder's tokenizer.
      task: what `_clip_config.task` takes besides.
    """
    text, vision = configs
    if vision["num_channels"] != 3:
        raise UserError(f"{source.place}: {vision['num_channels']} channels: 3 fit")
    arrays, kept = formats.loaded(table, source)
    size, context = vision["image_size"], text["max_position_embeddings"]
    image, stats = preprocessing(source, size)
    if "preprocessor_config.json" not in source.files:
        image["mode"], stats = processor
    image_tower, text_tower = _tower(vision), _tower(text)
    return formats.Model(
        _clip_config.task(
            {"kind": "vit", "patch": vision["patch_size"], **image_tower, **towers[1]},
            {**text_tower, **towers[0]},
            vocab_size=text["vocab_size"],
            context=context,
            image_size=size,
            act=text_tower["act"],
            stats=stats,
            **task,
        ),
        image,
        tokenizer(source, context, text["vocab_size"]),
        arrays,
        kept,
    )


def preprocessing(source: Source, size: int) -> tuple[dict[str, Any], tuple]:
    """The image field, and (mean, std), of preprocessor_config.json.

    Raises UserError for steps that ours have not.
    """
    theirs = source.files.get("preprocessor_config.json", {})
    theirs = theirs.get("image_processor", theirs)
    resize = theirs.get("size", size)
    crop = theirs.get("do_center_crop", True)
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
    method = _clip_config.method(theirs.get("resample", 3))
    if abs(theirs.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f"{source.place}: rescale_factor is not 1/255")
    mean, std = _clip_config.CLIP
    stats = theirs.get("image_mean", mean), theirs.get("image_std", std)
    return {"size": size, "mode": mode, "method": method}, stats


def exported(
    kind: str,
    model: formats.Model,
    dual: DualEncoder,
    *,
    table: Table,
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    tokenizer: tuple[Mapping[str, str], tuple[str, ...]],
) -> formats.Export:
    """A folder of transformers.

    Args:
      kind: "clip" or "siglip".
      config, text, vision: what config.json and the configs of its towers hold besides
        the numbers that both kinds have.
      tokenizer: its files, and notes.
    """
    config = {
        "model_type": kind,
        "architectures": [f"{_KINDS[kind]}Model"],
        **config,
        "text_config": {
            "model_type": f"{kind}_text_model",
            **_numbers(dual.text),
            "vocab_size": dual.text.vocab_size,
            "max_position_embeddings": dual.text.context,
            **text,
        },
        "vision_config": {
            "model_type": f"{kind}_vision_model",
            **_numbers(dual.image),
            "image_size": dual.image.image_size,
            "patch_size": dual.image.patch,
            **vision,
        },
    }
    size, squash = model.image["size"], model.image["mode"] == "squash"
    whole = {"height": size, "width": size}
    processor = {
        "image_processor_type": f"{_KINDS[kind]}ImageProcessor",
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
    files = {
        **tokenizer[0],
        "config.json": json.dumps(config, indent=2),
        "preprocessor_config.json": json.dumps(processor, indent=2),
    }
    tensors = formats.saved(table, model)
    return formats.Export({"model.safetensors": tensors}, files, tokenizer[1])
