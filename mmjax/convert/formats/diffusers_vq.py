"""diffusers' VQModel: config.json and diffusion_pytorch_model.safetensors."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference, _vqgan
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models.vqgan import VqganNet

ABOUT = "diffusers' VQModel: a folder with config.json"
TASK = "vqvae"
CLASS = "VQModel"
CODES = Rule("quantize.embedding.weight", "params/codebook")
FILE = "diffusion_pytorch_model.safetensors"
# What config.json has to say, where it says something
_FIXED = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "norm_type": "group",
    "latents_mean": None,
    "latents_std": None,
}


def detect(source: Source) -> bool:
    return source.config_json.get("_class_name") == CLASS


def table(keys: Iterable[str]) -> Table:
    return Table(*_vqgan.diffusers(8, naming(keys)), CODES)


def naming(keys: Iterable[str]) -> tuple[str, ...]:
    """What the parts of an attention are called: renamed in diffusers 0.13."""
    old = any(".attentions.0.query." in key for key in keys)
    return _vqgan.DIFFUSERS_OLD if old else _vqgan.DIFFUSERS


def networks(
    source: Source, more: Sequence[Rule]
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """(our arrays, `kept`, the networks' numbers) of a diffusers folder.

    Raises UserError for parts that ours have not.
    """
    theirs, names = source.config_json, naming(source.tensors)
    for key, value in _FIXED.items():
        if theirs.get(key, value) != value:
            raise UserError(
                f"{source.place}: {key} is {theirs[key]!r}: only {value!r} fits"
            )
    levels = len(theirs.get("block_out_channels", (64,)))
    rules = Table(*_vqgan.diffusers(levels, names), *more)
    arrays, kept = formats.loaded(rules, source)
    net = _vqgan.numbers(arrays, source.place)
    net["groups"] = theirs.get("norm_num_groups", 32)
    old = names is _vqgan.DIFFUSERS_OLD
    return arrays, kept | {"old_names": old, "config": dict(theirs)}, net


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept, net = networks(source, [CODES])
    size = int(source.config_json.get("sample_size", _vqgan.SIZE))
    return _vqgan.imported("vqvae", arrays, kept, size=size, net=net)


def from_mmjax(model: formats.Model) -> formats.Export:
    model, spec = _vqgan.exported(model, groups=None), model.task["tokenizer"]
    config = {
        "num_vq_embeddings": spec["vocab_size"],
        "vq_embed_dim": spec["code_dim"],
        "sample_size": spec["image_size"],
        "norm_type": "group",
    }
    return exported(CLASS, model, VqganNet(**spec["net"]), [CODES], config)


def exported(
    kind: str, model: formats.Model, net: VqganNet, more: Sequence[Rule], config: dict
) -> formats.Export:
    """A diffusers folder; `config` is what config.json says besides the networks."""
    names = _vqgan.DIFFUSERS_OLD if model.kept.get("old_names") else _vqgan.DIFFUSERS
    attended = [level in net.attention for level in range(len(net.mult))]
    down = ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attended]
    up = ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in attended[::-1]]
    config = {
        **model.kept.get("config", {}),
        "_class_name": kind,
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "block_out_channels": [net.width * mult for mult in net.mult],
        "layers_per_block": net.depth,
        "latent_channels": net.hidden,
        "norm_num_groups": net.groups,
        "mid_block_add_attention": net.middle,
        "down_block_types": down,
        "up_block_types": up,
        **config,
    }
    rules = Table(*_vqgan.diffusers(len(net.mult), names), *more)
    return formats.Export(
        {FILE: formats.saved(rules, model)},
        {"config.json": json.dumps(config, indent=2)},
    )


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of diffusers' model, opened from `folder`."""
    import diffusers
    import torch

    model = diffusers.VQModel.from_pretrained(folder).eval()
    with torch.no_grad():
        latents = model.encode(_reference.pixels(batch)).latents
        images = model.decode(latents).sample
        return _reference.tokens(model.quantize(latents)[2][2], images / 2 + 0.5)
