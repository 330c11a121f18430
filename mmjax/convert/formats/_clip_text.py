"""The text tower of Stable Diffusion: transformers' CLIPTextModel, and open_clip's."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _clip_config, _hugging_face, hf_clip
from mmjax.convert.formats._rules import OPEN_CLIP, blocks, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models.text import TextTransformer

HEAD = "text_model."  # leads the keys of transformers before 5
FROZEN = "frozen/text/"
RULES = [r for r in _hugging_face.RULES if r.ours.text.startswith("params/text/")]
OPEN_CLIP_RULES = [
    Rule("token_embedding.weight", "params/text/token_embedding"),
    Rule("positional_embedding", "params/text/position_embedding"),
    *blocks("transformer.resblocks", "params/text/transformer", OPEN_CLIP),
    *norm("ln_final", "params/text/norm_post"),
]
TABLE = Table(*RULES, skip=_hugging_face.SKIP)
OPEN_CLIP_TABLE = Table(
    *OPEN_CLIP_RULES, skip=("text_projection", "logit_scale", "attn_mask")
)
_CLASS = "CLIPTextModel"


def frozen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of `params/text` by the paths of a tower that is not trained."""
    return {FROZEN + k.removeprefix("params/text/"): v for k, v in arrays.items()}


def of_model(model: formats.Model) -> formats.Model:
    """The tower alone of a diffusion model, trained or frozen, by its own paths."""
    head = "params/text/" if model.task.get("train_tower") else FROZEN
    arrays = {
        "params/text/" + path.removeprefix(head): value
        for path, value in model.arrays.items()
        if path.startswith(head)
    }
    return formats.Model(
        model.task["tower"], {}, None, arrays, model.kept.get("text", {})
    )


def to_mmjax(source: Source) -> tuple[dict[str, Any], dict[str, np.ndarray], dict]:
    """(`config.task.tower`, our arrays, `kept`) of a folder of transformers."""
    own = dict(source.config_json)
    if (kind := own.get("model_type", "clip_text_model")) != "clip_text_model":
        raise UserError(
            f"{source.place} is a {kind!r}: only CLIP's text tower, "
            "'clip_text_model', fits"
        )
    whole = dataclasses.replace(source, files={"config.json": {"text_config": own}})
    config = _hugging_face.merged(whole, "text_config", hf_clip.TEXT)
    old = any(key.startswith(HEAD) for key in source.tensors)
    tensors = {
        key if key.startswith(HEAD) else HEAD + key: value
        for key, value in source.tensors.items()
    }
    arrays, kept = formats.loaded(TABLE, dataclasses.replace(source, tensors=tensors))
    tower = {
        "kind": "transformer",
        **_hugging_face.tower(config),
        "vocab_size": config["vocab_size"],
        "context": config["max_position_embeddings"],
    }
    _clip_config.sizes_agree(
        {"text": tower, "image": {}, **tower}, arrays, source.place
    )
    return tower, arrays, kept | {"old_names": old, "config": own}


def config_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The config.json of a CLIPTextModel that lies without one: heads are 64 wide."""
    names = {"vocab_size": "token_embedding"}
    names |= {"max_position_embeddings": "position_embedding"}
    lengths = {
        key: len(tensors[f"{HEAD}embeddings.{name}.weight"])
        for key, name in names.items()
    }
    layers = f"{HEAD}encoder.layers."
    width = tensors[f"{HEAD}final_layer_norm.weight"].shape[0]
    return lengths | {
        "hidden_size": width,
        "intermediate_size": tensors[f"{layers}0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": max(1, width // 64),
        "num_hidden_layers": len(
            {key.split(".")[3] for key in tensors if key.startswith(layers)}
        ),
    }


def of_open_clip(
    tensors: Mapping[str, np.ndarray], place: str
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict]:
    """The same of a model of open_clip, less its last block: Stable Diffusion 2 reads
    what the last but one gives."""
    last = max(
        int(key.split(".")[2])
        for key in tensors
        if key.startswith("transformer.resblocks.")
    )
    used = {
        key: value
        for key, value in tensors.items()
        if not key.startswith(f"transformer.resblocks.{last}.")
    }
    arrays, kept = formats.loaded(OPEN_CLIP_TABLE, Source(place, used, {}, None))
    vocab_size, width = arrays["params/text/token_embedding"].shape
    tower = {
        "kind": "transformer",
        "width": width,
        "depth": last,
        "vocab_size": vocab_size,
        "context": len(arrays["params/text/position_embedding"]),
        "act": "gelu",
    }
    return tower, arrays, kept


def from_mmjax(
    model: formats.Model, tower: TextTransformer, end: int
) -> formats.Export:
    """A folder of transformers; end: the id of a text's end."""
    tensors = formats.saved(TABLE, model)
    if not model.kept.get("old_names", True):
        tensors = {key.removeprefix(HEAD): value for key, value in tensors.items()}
    config = {
        **model.kept.get("config", {}),
        "architectures": [_CLASS],
        "model_type": "clip_text_model",
        **_hugging_face.numbers(tower),
        "vocab_size": tower.vocab_size,
        "max_position_embeddings": tower.context,
    }
    marks = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    return formats.Export(
        {"model.safetensors": tensors},
        {"config.json": json.dumps(marks | config, indent=2)},
    )
