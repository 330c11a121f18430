"""diffusers' VQModel: config.json and diffusion_pytorch_model.safetensors."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _vqgan
from mmjax.convert.formats.taming_vqgan import fits, picture
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models.vqgan import VqganNet

ABOUT = "diffusers' VQModel: a folder with config.json"
TASK = "vqvae"
CLASS = "VQModel"
CODES = "quantize.embedding.weight"
FILE = "diffusion_pytorch_model.safetensors"
_ANY = 8  # levels, for counting keys


def table(levels: int, names: tuple[str, ...], *more: Rule) -> Table:
    return Table(*_vqgan.diffusers(levels, names), *more)


def detect(source: Source) -> bool:
    return _config(source).get("_class_name") == CLASS


def known(keys: Iterable[str]) -> int:
    made = table(_ANY, _vqgan.DIFFUSERS, Rule(CODES, "params/codebook"))
    return made.known(keys)


def _config(source: Source) -> Mapping[str, Any]:
    found = source.files.get("config.json", {})
    return found if isinstance(found, Mapping) else {}


def naming(source: Source) -> tuple[str, ...]:
    """What the parts of an attention are called: renamed in diffusers 0.13."""
    old = any(".attentions.0.query." in key for key in source.tensors)
    return _vqgan.DIFFUSERS_OLD if old else _vqgan.DIFFUSERS


def networks(
    source: Source, *more: Rule
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """(our arrays, what to keep, the networks' numbers) of a diffusers folder.

    Raises UserError for parts that ours have not.
    """
    theirs = _config(source)
    wanted = {
        "in_channels": 3,
        "out_channels": 3,
        "act_fn": "silu",
        "norm_type": "group",
        "latents_mean": None,
        "latents_std": None,
    }
    for key, value in wanted.items():
        if theirs.get(key, value) != value:
            raise UserError(
                f"{source.place}: {key} is {theirs[key]!r}: only {value!r} fits"
            )
    levels = len(theirs.get("block_out_channels", (64,)))
    made = table(levels, naming(source), *more)
    arrays, kept = formats.loaded(made, source)
    net = _vqgan.numbers(arrays, source.place)
    net["groups"] = theirs.get("norm_num_groups", 32)
    kept["old_names"] = naming(source) is _vqgan.DIFFUSERS_OLD
    kept["config"] = dict(theirs)
    return arrays, kept, net


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept, net = networks(source, Rule(CODES, "params/codebook"))
    vocab_size, code_dim = arrays["params/codebook"].shape
    arrays["likelihood/variance"] = formats.unit()
    size = int(_config(source).get("sample_size", 256))
    spec = {
        "kind": "vqvae",
        "image_size": size,
        "vocab_size": vocab_size,
        "code_dim": code_dim,
        "ema": False,
        "net": {"kind": "vqgan", **net},
    }
    task = {"name": "vqvae", "tokenizer": spec, "kmeans": 0, "revive_below": 0.0}
    return formats.Model(task, picture(size), None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    fits(model, ema=False, groups=None)
    spec = model.task["tokenizer"]
    net = VqganNet(**spec["net"])
    arrays = {k: v for k, v in model.arrays.items() if k != "likelihood/variance"}
    names = _vqgan.DIFFUSERS_OLD if model.kept.get("old_names") else _vqgan.DIFFUSERS
    made = table(len(net.mult), names, Rule(CODES, "params/codebook"))
    tensors = formats.saved(made, formats.replaced(model, arrays))
    config = {
        **numbers(net, CLASS),
        "num_vq_embeddings": spec["vocab_size"],
        "vq_embed_dim": spec["code_dim"],
        "sample_size": spec["image_size"],
        "norm_type": "group",
    }
    return export(tensors, {**model.kept.get("config", {}), **config})


def export(tensors: Mapping[str, np.ndarray], config: Mapping) -> formats.Export:
    return formats.Export(
        {FILE: tensors}, {"config.json": json.dumps(config, indent=2)}
    )


def numbers(net: VqganNet, kind: str) -> dict[str, Any]:
    """config.json of the networks' fields."""
    levels = range(len(net.mult))
    attended = [level in net.attention for level in levels]
    down = ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attended]
    up = ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in attended[::-1]]
    return {
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
    }


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of diffusers' model, opened from `folder`."""
    import diffusers
    import torch

    model = diffusers.VQModel.from_pretrained(folder).eval()
    x = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = model.encode(x).latents
        ids = model.quantize(latents)[2][2]
        pictures = model.decode(latents).sample
    shown = (pictures.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1).numpy()
    tokens = ids.reshape(len(x), -1).numpy().astype(np.float32)
    return {"encode/image_tokens": tokens, "reconstruct/image": shown}
