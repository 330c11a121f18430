"""diffusers' AutoencoderKL, of Stable Diffusion and its kin."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _vqgan, diffusers_vq
from mmjax.convert.formats.taming_vqgan import picture
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models import autoencoder_kl

ABOUT = "diffusers' AutoencoderKL: a folder with config.json"
TASK = "autoencoder_kl"
CLASS = "AutoencoderKL"
_ANY = 8  # levels, for counting keys


def detect(source: Source) -> bool:
    theirs = source.files.get("config.json", {})
    return isinstance(theirs, Mapping) and theirs.get("_class_name") == CLASS


def known(keys: Iterable[str]) -> int:
    return diffusers_vq.table(_ANY, _vqgan.DIFFUSERS).known(keys)


def to_mmjax(source: Source) -> formats.Model:
    theirs = source.files["config.json"]
    maps = [theirs.get(f"use_{name}conv", True) for name in ("quant_", "post_quant_")]
    if len(set(maps)) > 1:
        raise UserError(
            f"{source.place}: use_quant_conv is {maps[0]} and use_post_quant_conv "
            f"{maps[1]}: both or neither fit"
        )
    arrays, kept, net = diffusers_vq.networks(source)
    size = int(theirs.get("sample_size", 256))
    autoencoder = {
        "image_size": size,
        # with points their map decides; without them hidden is a latent's width
        "code_dim": arrays["params/decoder/point/kernel"].shape[0]
        if net["points"]
        else net["hidden"],
        "net": net,
        "scale": float(theirs.get("scaling_factor", 0.18215)),
        "shift": float(theirs.get("shift_factor") or 0.0),
    }
    task = {"name": TASK, "autoencoder": autoencoder}
    return formats.Model(task, picture(size), None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    spec = autoencoder_kl.Spec(**model.task["autoencoder"])
    net = autoencoder_kl.VqganNet(**spec.net)
    if net.points and spec.code_dim != net.hidden:
        raise UserError(
            f"latents of {spec.code_dim} channels and hidden {net.hidden}: diffusers "
            "has one number for both"
        )
    names = _vqgan.DIFFUSERS_OLD if model.kept.get("old_names") else _vqgan.DIFFUSERS
    made = diffusers_vq.table(len(net.mult), names)
    tensors = formats.saved(made, model)
    config: dict[str, Any] = {
        **diffusers_vq.numbers(net, CLASS),
        "sample_size": spec.image_size,
        "scaling_factor": spec.scale,
        "shift_factor": spec.shift or None,
        "use_quant_conv": net.points,
        "use_post_quant_conv": net.points,
    }
    return diffusers_vq.export(tensors, {**model.kept.get("config", {}), **config})


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of diffusers' model, opened from `folder`."""
    import diffusers
    import torch

    model = diffusers.AutoencoderKL.from_pretrained(folder).eval()
    x = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    shift = model.config.shift_factor or 0.0
    with torch.no_grad():
        latents = model.encode(x).latent_dist.mode()
        pictures = model.decode(latents).sample
    seen = (latents - shift) * model.config.scaling_factor
    return {
        "encode/latent": seen.permute(0, 2, 3, 1).numpy(),
        "reconstruct/image": (pictures.permute(0, 2, 3, 1) / 2 + 0.5)
        .clamp(0, 1)
        .numpy(),
    }
