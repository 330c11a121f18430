"""What transformers' CLIPModel and SiglipModel share: names, configs, processors."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mmjax.convert import formats, name_table
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
_OWN = "image_processor"  # where its keys are, if not beside the file's others
# Keys of a processor that change no pixel
_PROCESSOR = {
    *("image_processor_type", "feature_extractor_type", "processor_class"),
    *("do_convert_rgb", "data_format", "input_data_format", "return_tensors"),
    *("device", "default_to_square", "disable_grouping", "use_fast"),
    *("_valid_processor_keys", "model_input_names", "transformers_version"),
}
# Keys of a tower's config that change no embedding: of training, of generation
# (transformers writes them into every config), of what is returned
_CONFIG = {
    *("model_type", "architectures", "transformers_version", "torch_dtype", "dtype"),
    *("_name_or_path", "tokenizer_class", "name_or_path", "_attn_implementation"),
    *("attn_implementation", "_attn_implementation_autoset", "attention_dropout"),
    *("dropout", "hidden_dropout", "initializer_range", "initializer_factor"),
    *("projection_dim", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("sep_token_id", "decoder_start_token_id", "id2label", "label2id"),
    *("return_dict", "output_attentions", "output_hidden_states", "torchscript"),
    *("use_bfloat16", "tf_legacy_loss", "tie_word_embeddings", "prefix"),
    *("chunk_size_feed_forward", "max_length", "min_length", "num_beams"),
    *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty", "num_return_sequences"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "use_cache"),
    *("remove_invalid_values", "gradient_checkpointing", "problem_type"),
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
        own, where = source.config_json.get(name) or {}, f"config.json's {name}"
        config = _clip_config.typed(own, config, where, projection_size=int | None)
        _known(own, {*defaults, *_CONFIG}, where)
    return config


def _known(own: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """UserError for a key that is set and that nothing here acts on."""
    odd = sorted(key for key, value in own.items() if value and key not in known)
    if odd:
        said = ", ".join(f"{key} ({own[key]!r})" for key in odd[: name_table.SHOWN])
        raise UserError(f"{where} says {said}, which ours does not have: refused")


def tower(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that both towers of ours have, from a tower's config."""
    ratio = _clip_config.ratio(config["intermediate_size"], config["hidden_size"])
    return {
        **{ours: config[theirs] for theirs, ours in _FIELDS.items()},
        "mlp_ratio": ratio,
        "act": _clip_config.translated(config["hidden_act"], _ACTS, "hidden_act"),
    }


def numbers(tower: Any) -> dict[str, Any]:
    """What the configs of both towers hold; undoes `tower`."""
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
    default: tuple[str, tuple] = ("crop", _clip_config.CLIP),
    tokenizer: Callable[[Source, int, int], Tokenizer],
    **task: Any,
) -> formats.Model:
    """Our model of a folder.

    Args:
      configs: of the text tower and of the image tower, complete.
      towers: fields of ours that the configs leave out, of text and image.
      default: the resize mode, mean and std where there is no processor's file.
      tokenizer: (source, context, vocab_size) -> the folder's tokenizer.
      task: what `_clip_config.task` takes besides.
    """
    text, vision = configs
    if vision["num_channels"] != 3:
        raise UserError(f"{source.place}: {vision['num_channels']} channels: 3 fit")
    arrays, kept = formats.loaded(table, source)
    size, context = vision["image_size"], text["max_position_embeddings"]
    image, stats = preprocessing(source, size)
    if not processor(source):
        image["mode"], stats = default
    image_tower, text_tower = tower(vision), tower(text)
    task = _clip_config.task(
        {"kind": "vit", "patch": vision["patch_size"], **image_tower, **towers[1]},
        {**text_tower, **towers[0]},
        vocab_size=text["vocab_size"],
        context=context,
        image_size=size,
        act=text_tower["act"],
        stats=stats,
        **task,
    )
    _clip_config.sizes_agree(task, arrays, source.place)
    return formats.Model(
        task,
        image,
        tokenizer(source, context, text["vocab_size"]),
        arrays,
        kept,
    )


def preprocessing(source: Source, size: int) -> tuple[dict[str, Any], tuple]:
    """The image field, and (mean, std), of a folder's image processor.

    Raises UserError for steps that ours have not.
    """
    theirs = processor(source)
    where = f"{source.place}: the image processor"
    mean, std = _clip_config.CLIP
    stats = _clip_config.typed(
        theirs,
        {"image_mean": mean, "image_std": std, "rescale_factor": 1 / 255}
        | dict.fromkeys(("do_resize", "do_center_crop"), True)
        | dict.fromkeys(("do_rescale", "do_normalize"), True),
        where,
        image_mean=tuple[float, float, float],
        image_std=tuple[float, float, float],
        do_center_crop=Any,
    )
    _known(theirs, {*stats, "resample", "size", "crop_size", *_PROCESSOR}, where)
    for key in ("do_resize", "do_rescale"):
        if not stats[key]:
            raise UserError(f"{where} has {key} off: only models that do it fit")
    resize, crop = theirs.get("size", size), stats["do_center_crop"]
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
    cut = theirs.get("crop_size", size)
    if crop and cut not in (size, {"height": size, "width": size}):
        raise UserError(f"{where} cuts out {cut}, for a model of {size} px")
    method = _clip_config.method(theirs.get("resample", 3))
    if abs(stats["rescale_factor"] * 255 - 1) > 1e-6:
        raise UserError(f"{source.place}: rescale_factor is not 1/255")
    own = stats["image_mean"], stats["image_std"]
    if not stats["do_normalize"]:
        own = (0.0,) * 3, (1.0,) * 3
    return {"size": size, "mode": mode, "method": method}, own


def processor(source: Source) -> Mapping[str, Any]:
    """What the folder says of its image processor; empty where it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        theirs = source.files.get(name, {})
        if isinstance(theirs, Mapping) and isinstance(theirs.get(_OWN, {}), Mapping):
            own = theirs.get(_OWN, theirs if name.startswith("pre") else {})
            if own:
                return own
        else:
            raise UserError(f"{source.place}: {name} is no image processor's")
    return {}


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
            **numbers(dual.text),
            "vocab_size": dual.text.vocab_size,
            "max_position_embeddings": dual.text.context,
            **text,
        },
        "vision_config": {
            "model_type": f"{kind}_vision_model",
            **numbers(dual.image),
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
    notes = (*tokenizer[1], *_clip_config.notes(model.image))
    return formats.Export({"model.safetensors": tensors}, files, notes)
