"""open_clip: safetensors or .bin with its JSON model config, as it saves them.

ViT and ResNet towers that are open_clip's own, and timm's SigLIP towers; text towers
that are open_clip's own. The JSON decides activation, pooling and preprocessing:
weights without it are refused, since the arrays are the same for GELU and QuickGELU.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_config,
    _clip_tokenizer,
    _reference_clip,
    _siglip_tokenizer,
    _timm,
    openai_clip,
)
from mmjax.convert.formats._rules import dense
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import VECTOR
from mmjax.data.tokenizers import pieces
from mmjax.errors import UserError
from mmjax.models import presets
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
_POOLS = {"argmax": "end", "last": "last"}
_TOP = {
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
}


def table(keys: Iterable[str], *, nonscalar: bool = False) -> Table:
    """The names that a state dict with these keys has."""
    keys = set(keys)
    prefix = "text." if "text.token_embedding.weight" in keys else ""
    image = openai_clip.image_rules(openai_clip.is_resnet(keys))
    rules = [
        *(_timm.RULES if _timm.PATCHES in keys else image),
        *openai_clip.text_rules(prefix),
    ]
    if f"{prefix}text_projection.weight" in keys:
        rules += dense(f"{prefix}text_projection", "params/text_proj")
    else:
        rules.append(Rule(f"{prefix}text_projection", "params/text_proj/kernel"))
    if nonscalar:
        rules = [
            Rule(rule.names[0], rule.ours_text, VECTOR)
            if rule.names[0] in ("logit_scale", "logit_bias")
            else rule
            for rule in rules
        ]
    return Table(*rules, skip=(openai_clip.COUNTERS,))


def config_of(source: Source) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(model_cfg, preprocess_cfg) beside the weights, or None."""
    for found in (source.files.get(CONFIG), *source.files.values()):
        if isinstance(found, Mapping) and "model_cfg" in found:
            return found["model_cfg"], found.get("preprocess_cfg") or {}
        if isinstance(found, Mapping) and {"embed_dim", "vision_cfg"} <= found.keys():
            return dict(found), {}
    return None


def detect(source: Source) -> bool:
    keys = source.tensors.keys()
    ours = any(k.startswith("visual.") for k in keys) and known(keys) > 0
    return ours and not openai_clip.detect(source) and config_of(source) is not None


def known(keys: Iterable[str]) -> int:
    keys = list(keys)
    return table(keys).known(keys)


def unknown(keys: Iterable[str]) -> list[str]:
    names = table(keys)
    return [key for key in keys if not names.known([key])]


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
    return {**defaults, **{k: v for k, v in cfg.items() if k in defaults}}


def _act(cfg: Mapping[str, Any], quick: bool) -> str:
    if quick:
        return "quick_gelu"
    tanh = (cfg["act_kwargs"] or {}).get("approximate") == "tanh"
    return "gelu_tanh" if tanh else "gelu"


def _eps(cfg: Mapping[str, Any]) -> float:
    return float((cfg["norm_kwargs"] or {}).get("eps", 1e-5))


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
    return {
        "kind": "vit",
        "width": cfg["width"],
        "depth": cfg["layers"],
        "heads": cfg["width"] // cfg["head_width"],
        "mlp_ratio": cfg["mlp_ratio"],
        "patch": cfg["patch_size"],
        "act": _act(cfg, quick),
        "eps": _eps(cfg),
    }


def task_of(model_cfg: Mapping[str, Any], preprocess: Mapping[str, Any]) -> dict:
    """`config.task` of open_clip's JSON.

    Raises UserError for a model with parts that ours has not, naming the key.
    """
    for key in model_cfg.keys() - _TOP:
        raise UserError(f"open_clip's {key}: a model with it does not fit")
    vision = _checked(model_cfg["vision_cfg"], _VISION, "vision_cfg")
    text = _checked(model_cfg["text_cfg"], _TEXT, "text_cfg")
    quick = bool(model_cfg.get("quick_gelu", False))
    pool = _clip_config.activation(
        text["pool_type"], _POOLS, "open_clip's text_cfg.pool_type"
    )
    siglip = bool(vision["timm_model_name"])
    return _clip_config.task(
        _image(vision, quick),
        {
            "kind": "transformer",
            "width": text["width"],
            "depth": text["layers"],
            "heads": text["heads"],
            "mlp_ratio": text["mlp_ratio"],
            "causal": not text["no_causal_mask"],
            "pool": pool,
            "project_bias": text["proj_bias"],
            "act": _act(text, quick),
            "eps": _eps(text),
        },
        embed_dim=model_cfg["embed_dim"],
        vocab_size=text["vocab_size"],
        context=text["context_length"],
        image_size=vision["image_size"],
        act=_act(text, quick),
        sigmoid=model_cfg.get("init_logit_bias") is not None,
        mean=preprocess.get("mean", _clip_config.HALF if siglip else presets.CLIP_MEAN),
        std=preprocess.get("std", _clip_config.HALF if siglip else presets.CLIP_STD),
    )


def to_mmjax(source: Source) -> formats.Model:
    found = config_of(source)
    if found is None:
        raise UserError(
            f"{source.place}: open_clip's JSON model config is not beside it: {ADVICE}"
        )
    model_cfg, preprocess = found
    task = task_of(model_cfg, preprocess)
    names = table(source.tensors, nonscalar=source.tensors["logit_scale"].ndim == 1)
    arrays, kept = formats.loaded(names, source)
    modes = {"shortest": "crop", "squash": "squash"}
    siglip = bool(model_cfg["vision_cfg"].get("timm_model_name"))
    mode = preprocess.get("resize_mode", "squash" if siglip else "shortest")
    return formats.Model(
        task=task,
        image={
            "size": task["image_size"],
            "mode": _clip_config.activation(mode, modes, "open_clip's resize_mode"),
            "method": f"pil_{preprocess.get('interpolation', 'bicubic')}",
        },
        tokenizer=_tokenizer(source, task, model_cfg["text_cfg"]),
        arrays=arrays,
        kept=kept | {"config": {"model_cfg": model_cfg, "preprocess_cfg": preprocess}},
    )


def _tokenizer(
    source: Source, task: Mapping[str, Any], text_cfg: Mapping[str, Any]
) -> str:
    """The tokenizer that the text config names, from the files beside the weights."""
    sizes = task["context"], task["vocab_size"]
    if text_cfg.get("hf_tokenizer_name"):
        options = text_cfg.get("tokenizer_kwargs") or {}
        return _siglip_tokenizer.of_folder(
            source, *sizes, clean=options.get("clean", "")
        )
    found = _clip_tokenizer.of_folder(source, *sizes)
    if found is not None:
        return found
    built = _clip_tokenizer.clip(task["context"], source)
    if _clip_tokenizer.opened(built).vocab_size > task["vocab_size"]:
        raise UserError(
            f"{source.place}: its text has {task['vocab_size']} ids, CLIP's tokenizer "
            "has more: put the tokenizer's files into its folder"
        )
    return built


def from_mmjax(model: formats.Model) -> formats.Export:
    dual = _clip_config.dual(model.task)
    config = model.kept.get("config")
    if config is None or not _describes(config, model.task):
        config = _config(dual, model)
    theirs = config["model_cfg"]
    keys = ["text.token_embedding.weight"] if theirs.get("custom_text") else []
    prefix = "text." if keys else ""
    if dual.text.project_bias:
        keys.append(f"{prefix}text_projection.weight")
    if isinstance(dual.image, ResNet):
        keys.append("visual.attnpool.c_proj.weight")
    elif dual.image.pool == "map":
        keys.append(_timm.PATCHES)
    names = table(keys, nonscalar=bool(theirs.get("nonscalar_logit_scale")))
    tensors = formats.saved(names, model)
    files = {
        CONFIG: json.dumps(config, indent=2),
        **_clip_tokenizer.bpe_file(model.tokenizer),
    }
    if theirs["text_cfg"].get("hf_tokenizer_name"):
        files |= _siglip_tokenizer.hugging_face_files(model.tokenizer)[0]
    notes = ()
    if _clip_tokenizer.OWN in files:
        notes = (
            f"its tokenizer is SimpleTokenizer(bpe_path=FOLDER/{_clip_tokenizer.OWN})",
        )
    elif _clip_tokenizer.opened(model.tokenizer).kind in ("bpe", "bytes"):
        notes = ("open_clip has no tokenizer with these ids: none is written",)
    return formats.Export({"open_clip_model.safetensors": tensors}, files, notes)


def _describes(config: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Whether open_clip's JSON is still that of this model: a run can be overridden."""
    found = task_of(config["model_cfg"], config["preprocess_cfg"])
    plain = json.loads(json.dumps([found, {key: task.get(key) for key in found}]))
    return plain[0] | {"name": ""} == plain[1] | {"name": ""}


def _config(dual: DualEncoder, model: formats.Model) -> dict[str, Any]:
    """open_clip_config.json of a model that was not its own."""
    image, text = dual.image, dual.text
    quick = text.act == "quick_gelu"
    vision: dict[str, Any] = {"image_size": image.image_size}
    if isinstance(image, ResNet):
        head = image.width * 32 // _clip_config.heads(image)
        vision |= {"layers": list(image.depths), "width": image.width}
        vision |= {"head_width": head, "patch_size": None}
    elif image.pool == "map":
        vision |= _timm.config(image)
    else:
        _clip_config.same("act", image.act == "quick_gelu", quick)
        head = image.width // _clip_config.heads(image)
        vision |= {"layers": image.depth, "width": image.width, "head_width": head}
        vision |= {"mlp_ratio": image.mlp_ratio, "patch_size": image.patch}
        vision |= _options(image)
    words = {
        "context_length": text.context,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": _clip_config.heads(text),
        "layers": text.depth,
        "mlp_ratio": text.mlp_ratio,
        "no_causal_mask": not text.causal,
        "pool_type": {v: k for k, v in _POOLS.items()}[text.pool],
        "proj_bias": text.project_bias,
        **_options(text),
    }
    if isinstance(_clip_tokenizer.opened(model.tokenizer), pieces.PieceTokenizer):
        words["hf_tokenizer_name"] = "."  # the folder's own; open_clip takes a path
    made = {"embed_dim": dual.embed_dim, "vision_cfg": vision, "text_cfg": words}
    made |= {"quick_gelu": quick}
    if dual.init_bias is not None or text.project_bias or not text.causal:
        made |= {"custom_text": True}
    if dual.init_bias is not None:
        made |= {"init_logit_bias": dual.init_bias}
    size, squash = model.image["size"], model.image["mode"] == "squash"
    preprocess = {
        "size": [size, size],
        "mode": "RGB",
        "mean": list(model.task["mean"]),
        "std": list(model.task["std"]),
        "interpolation": model.image["method"].removeprefix("pil_"),
        "resize_mode": "squash" if squash else "shortest",
    }
    return {"model_cfg": made, "preprocess_cfg": preprocess}


def _options(tower: Any) -> dict[str, Any]:
    """act_kwargs and norm_kwargs, where they differ from open_clip's defaults."""
    if not re.fullmatch("gelu|gelu_tanh|quick_gelu", tower.act):
        raise UserError(f"act is {tower.act}: open_clip has gelu and quick_gelu alone")
    made: dict[str, Any] = {}
    if tower.act == "gelu_tanh":
        made["act_kwargs"] = {"approximate": "tanh"}
    if tower.eps != 1e-5:
        made["norm_kwargs"] = {"eps": tower.eps}
    return made


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of open_clip's model, opened from `folder`."""
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    found = json.loads((folder / CONFIG).read_text())["preprocess_cfg"]
    stats = (
        found.get("mean", presets.CLIP_MEAN),
        found.get("std", presets.CLIP_STD),
    )
    return _reference_clip.open_clip(model, stats, batch)
