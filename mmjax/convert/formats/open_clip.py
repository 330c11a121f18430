"""open_clip: safetensors or .bin with its JSON model config, as it saves them.

ViT and ResNet towers that are open_clip's own, and timm's SigLIP towers; text towers
that are open_clip's own. The JSON decides activation, pooling and preprocessing:
weights without it are refused, since the arrays are the same for GELU and QuickGELU.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_config,
    _clip_tokenizer,
    _reference,
    _siglip_tokenizer,
    _timm,
    openai_clip,
)
from mmjax.convert.formats._rules import layer
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import SAME, VECTOR
from mmjax.data.tokenizers import pieces
from mmjax.data.tokenizers.base import Tokenizer
from mmjax.errors import UserError
from mmjax.models.dual_encoder import DualEncoder
from mmjax.models.resnet import ResNet

ABOUT = "open_clip: weights with open_clip_config.json, or with --json MODEL.json"
TASK = "clip"
CONFIG = "open_clip_config.json"
ADVICE = (
    "give --json MODEL.json, open_clip's config of this model, which tells GELU from "
    "QuickGELU, or --from openai_clip where the weights are OpenAI's"
)
# What open_clip's config classes have where the JSON leaves a key out. Keys that are
# neither here nor in _FREE have to keep these values: ours has no such part.
_VISION = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
    "act_kwargs": None,
    "norm_kwargs": None,
    "timm_model_name": None,
}
_TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "act_kwargs": None,
    "norm_kwargs": None,
}
_FREE = {  # of training, of outputs that are not embeddings, or of the tokenizer
    *("patch_dropout", "output_tokens", "timm_drop", "timm_drop_path"),
    *("timm_model_pretrained", "timm_proj_bias", "hf_tokenizer_name", "pad_id"),
    *("tokenizer_mode", "tokenizer_kwargs", "pos_embed_type", "hf_model_pretrained"),
}
_FIXED = {
    "ls_init_value": (None,),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "final_ln_after_pool": (False,),
    "embed_cls": (False,),
    "proj_type": ("linear",),
    "hf_model_name": (None,),
    "block_type": (None, "default"),
    "timm_pool": ("map",),
    "timm_proj": ("none", "", None),
}
_KINDS = {
    "layers": int | tuple[int, int, int, int],  # four make a ResNet
    "image_size": int | tuple[int, ...],
    "patch_size": int | tuple[int, ...] | None,
    **dict.fromkeys(("act_kwargs", "norm_kwargs"), Mapping | None),
    "timm_model_name": str | None,
}
# What an image goes through, and what it may be; other keys are refused.
_PREPROCESS = {"mode": ("RGB",), "fill_color": (0, [0, 0, 0])}  # of a frame: none here
_POOLS = {"argmax": "end", "last": "last"}
_MODES = {"shortest": "crop", "squash": "squash"}
_TOP = {
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
}


def table(keys: Iterable[str], *, nonscalar: bool = False) -> Table:
    """The names of a state dict; `nonscalar`: the logits' scale and bias are (1,)."""
    keys = set(keys)
    prefix = "text." if any(key.startswith("text.") for key in keys) else ""
    image = openai_clip.image_rules(openai_clip.RESNET in keys)
    if f"{prefix}text_projection.weight" in keys:
        projection = layer(f"{prefix}text_projection", "params/text_proj")
    else:
        projection = [Rule(f"{prefix}text_projection", "params/text_proj/kernel")]
    return Table(
        *(_timm.RULES if _timm.KEY in keys else image),
        *openai_clip.text_rules(prefix, VECTOR if nonscalar else SAME),
        *projection,
        skip=(openai_clip.COUNTERS,),
    )


def config_of(source: Source) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(model_cfg, preprocess_cfg) beside the weights, or None."""
    for theirs in (source.files.get(CONFIG), *source.files.values()):
        if isinstance(theirs, Mapping) and "model_cfg" in theirs:
            return theirs["model_cfg"], theirs.get("preprocess_cfg") or {}
        if isinstance(theirs, Mapping) and {"embed_dim", "vision_cfg"} <= theirs.keys():
            return dict(theirs), {}
    return None


def detect(source: Source) -> bool:
    ours = any(key.startswith("visual.") for key in source.tensors)
    return ours and not openai_clip.detect(source) and config_of(source) is not None


def _checked(
    cfg: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The config with defaults; UserError for what ours cannot do, naming it."""
    for key, value in cfg.items():
        legal = _FIXED.get(key)
        if key == "pool_type" and where == "vision_cfg":
            legal = ("tok",)
        if legal is not None and value not in legal:
            raise UserError(
                f"open_clip's {where}.{key} is {value!r}: a model with it does not fit "
                f"(what fits: {', '.join(map(repr, legal))})"
            )
        if key not in defaults and key not in _FREE and legal is None and value:
            raise UserError(f"open_clip's {where}.{key} ({value!r}) is not known here")
    return _clip_config.typed(cfg, defaults, f"open_clip's {where}", **_KINDS)


def _shared(cfg: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Fields that both transformers have."""
    tanh = (cfg["act_kwargs"] or {}).get("approximate") == "tanh"
    return {
        "width": cfg["width"],
        "depth": cfg["layers"],
        "mlp_ratio": cfg["mlp_ratio"],
        "act": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu",
        "eps": float((cfg["norm_kwargs"] or {}).get("eps", 1e-5)),
    }


def _image(cfg: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Fields of our image tower."""
    if cfg["timm_model_name"]:
        return _timm.tower(cfg["timm_model_name"])
    resnet = not isinstance(cfg["layers"], int)  # which has no patches
    sizes = [cfg["image_size"], *([] if resnet else [cfg["patch_size"]])]
    if not all(isinstance(size, int) for size in sizes):
        raise UserError("open_clip's image_size and patch_size: only squares fit")
    if resnet:
        return {
            "kind": "resnet",
            "depths": tuple(cfg["layers"]),
            "width": cfg["width"],
            "heads": cfg["width"] * 32 // cfg["head_width"],
        }
    heads = cfg["width"] // cfg["head_width"]
    own = {"kind": "vit", "heads": heads, "patch": cfg["patch_size"]}
    return _shared(cfg, quick) | own


def task_of(model_cfg: Mapping[str, Any], preprocess: Mapping[str, Any]) -> dict:
    """`config.task` of open_clip's JSON.

    Raises UserError for a model with parts that ours has not, naming the key.
    """
    for key in model_cfg.keys() - _TOP:
        raise UserError(f"open_clip's {key}: a model with it does not fit")
    vision = _checked(model_cfg["vision_cfg"], _VISION, "vision_cfg")
    text = _checked(model_cfg["text_cfg"], _TEXT, "text_cfg")
    quick = bool(model_cfg.get("quick_gelu", False))
    key = "open_clip's text_cfg.pool_type"
    pool = _clip_config.translated(text["pool_type"], _POOLS, key)
    mean, std = _clip_config.HALF if vision["timm_model_name"] else _clip_config.CLIP
    own = {"heads": text["heads"], "causal": not text["no_causal_mask"], "pool": pool}
    tower = _shared(text, quick) | own | {"project_bias": text["proj_bias"]}
    return _clip_config.task(
        _image(vision, quick),
        tower,
        embed_dim=model_cfg["embed_dim"],
        vocab_size=text["vocab_size"],
        context=text["context_length"],
        image_size=vision["image_size"],
        act=tower["act"],
        sigmoid=model_cfg.get("init_logit_bias") is not None,
        stats=(preprocess.get("mean", mean), preprocess.get("std", std)),
    )


def to_mmjax(source: Source) -> formats.Model:
    config = config_of(source)
    if config is None:
        raise UserError(
            f"{source.place}: open_clip's JSON model config is not beside it: {ADVICE}"
        )
    model_cfg, preprocess = config
    task = task_of(model_cfg, preprocess)
    _check_preprocess(preprocess, task["image_size"])
    names = table(source.tensors, nonscalar=source.tensors["logit_scale"].ndim == 1)
    arrays, kept = formats.loaded(names, source)
    _clip_config.sizes_agree(task, arrays, source.place)
    timm = bool(model_cfg["vision_cfg"].get("timm_model_name"))
    mode = preprocess.get("resize_mode", "squash" if timm else "shortest")
    return formats.Model(
        task=task,
        image={
            "size": task["image_size"],
            "mode": _clip_config.translated(mode, _MODES, "open_clip's resize_mode"),
            "method": f"pil_{preprocess.get('interpolation', 'bicubic')}",
        },
        tokenizer=_tokenizer(source, task, model_cfg["text_cfg"]),
        arrays=arrays,
        kept=kept | {"config": {"model_cfg": model_cfg, "preprocess_cfg": preprocess}},
    )


def _check_preprocess(preprocess: Mapping[str, Any], size: int) -> None:
    """UserError for a step that ours has not."""
    legal = _PREPROCESS | {"size": (size, [size, size])}
    acted = ("mean", "std", "interpolation", "resize_mode")
    for key, value in preprocess.items():
        if value not in legal.get(key, (None,) if key not in acted else (value,)):
            raise UserError(
                f"open_clip's preprocess_cfg.{key} is {value!r}, which does not fit a "
                f"model of {size} px here"
            )


def _tokenizer(
    source: Source, task: Mapping[str, Any], text_cfg: Mapping[str, Any]
) -> Tokenizer:
    """The tokenizer that the text config names, from the files beside the weights."""
    sizes = task["context"], task["vocab_size"]
    if text_cfg.get("hf_tokenizer_name"):
        options = text_cfg.get("tokenizer_kwargs") or {}
        clean = options.get("clean", "")
        return _siglip_tokenizer.of_folder(source, *sizes, clean=clean)
    own = _clip_tokenizer.of_folder(source, *sizes)
    if own is None:
        own = _clip_tokenizer.clip(task["context"], source)
    if own.vocab_size > task["vocab_size"]:
        raise UserError(
            f"{source.place}: its text has {task['vocab_size']} ids, CLIP's tokenizer "
            "has more: put the tokenizer's files into its folder"
        )
    return own


def from_mmjax(model: formats.Model) -> formats.Export:
    dual, tokenizer = _clip_config.dual(model.task), model.tokenizer
    config = model.kept.get("config")
    if config is None or not _describes(config, model.task):
        config = _config(dual, model)
    theirs = config["model_cfg"]
    prefix = "text." if theirs.get("custom_text") else ""
    keys = [f"{prefix}token_embedding.weight"]
    if dual.text.project_bias:
        keys.append(f"{prefix}text_projection.weight")
    if isinstance(dual.image, ResNet):
        keys.append(openai_clip.RESNET)
    elif dual.image.pool == "map":
        keys.append(_timm.KEY)
    names = table(keys, nonscalar=bool(theirs.get("nonscalar_logit_scale")))
    files = {
        CONFIG: json.dumps(config, indent=2),
        **_clip_tokenizer.bpe_file(tokenizer),
    }
    if theirs["text_cfg"].get("hf_tokenizer_name"):
        files |= _siglip_tokenizer.hugging_face_files(tokenizer)[0]
    notes = ()
    if _clip_tokenizer.OWN in files:
        notes = (
            f"its tokenizer is SimpleTokenizer(bpe_path=FOLDER/{_clip_tokenizer.OWN})",
        )
    elif tokenizer.kind in ("bpe", "bytes"):
        notes = ("open_clip has no tokenizer with these ids: none is written",)
    tensors = formats.saved(names, model)
    return formats.Export(
        {"open_clip_model.safetensors": tensors},
        files,
        notes + _clip_config.notes(model.image),
    )


def _describes(config: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Whether open_clip's JSON is still that of this model: a run can be overridden."""
    described = task_of(config["model_cfg"], config["preprocess_cfg"])
    own = {key: task.get(key) for key in described} | {"name": described["name"]}
    return json.dumps(own, sort_keys=True) == json.dumps(described, sort_keys=True)


def _config(dual: DualEncoder, model: formats.Model) -> dict[str, Any]:
    """open_clip_config.json of a model that was not its own."""
    image, text = dual.image, dual.text
    vision: dict[str, Any] = {"image_size": image.image_size}
    heads, quick = _clip_config.heads(image), text.act == "quick_gelu"
    if isinstance(image, ResNet):
        vision |= {
            "layers": list(image.depths),
            "width": image.width,
            "head_width": image.width * 32 // heads,
            "patch_size": None,
        }
    elif image.pool == "map":
        vision |= _timm.config(image)
    else:
        if (image.act == "quick_gelu") != quick:
            raise UserError(
                f"act is {image.act} of images and {text.act} of text: this format has "
                "room for one"
            )
        own = {"head_width": image.width // heads, "patch_size": image.patch}
        vision |= own | _transformer(image)
    words = {
        "context_length": text.context,
        "vocab_size": text.vocab_size,
        "heads": _clip_config.heads(text),
        "no_causal_mask": not text.causal,
        "pool_type": {v: k for k, v in _POOLS.items()}[text.pool],
        "proj_bias": text.project_bias,
        **_transformer(text),
    }
    if isinstance(model.tokenizer, pieces.PieceTokenizer):
        words["hf_tokenizer_name"] = "."  # the folder's own; open_clip takes a path
    model_cfg = {"embed_dim": dual.embed_dim, "vision_cfg": vision, "text_cfg": words}
    model_cfg |= {"quick_gelu": quick}
    if dual.init_bias is not None or text.project_bias or not text.causal:
        model_cfg |= {"custom_text": True}
    if dual.init_bias is not None:
        model_cfg |= {"init_logit_bias": dual.init_bias}
    size, mode = model.image["size"], model.image["mode"]
    preprocess = {
        "size": [size, size],
        "mode": "RGB",
        "mean": list(model.task["mean"]),
        "std": list(model.task["std"]),
        "interpolation": model.image["method"].removeprefix("pil_"),
        "resize_mode": {v: k for k, v in _MODES.items()}[mode],
    }
    return {"model_cfg": model_cfg, "preprocess_cfg": preprocess}


def _transformer(tower: Any) -> dict[str, Any]:
    """What both towers' configs hold; act_kwargs and norm_kwargs only where they
    differ from open_clip's defaults. Undoes `_shared`."""
    if tower.act not in ("gelu", "gelu_tanh", "quick_gelu"):
        raise UserError(f"act is {tower.act}: open_clip has gelu and quick_gelu alone")
    config: dict[str, Any] = {
        "layers": tower.depth,
        "width": tower.width,
        "mlp_ratio": tower.mlp_ratio,
    }
    if tower.act == "gelu_tanh":
        config["act_kwargs"] = {"approximate": "tanh"}
    if tower.eps != 1e-5:
        config["norm_kwargs"] = {"eps": tower.eps}
    return config


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of open_clip's model, opened from `folder`."""
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    own = json.loads((folder / CONFIG).read_text())["preprocess_cfg"]
    mean, std = _clip_config.CLIP
    stats = own.get("mean", mean), own.get("std", std)
    return _reference.open_clip(model, batch, stats)
