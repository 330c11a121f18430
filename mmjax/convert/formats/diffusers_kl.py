"""diffusers' AutoencoderKL, of Stable Diffusion and its kin."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference, _vqgan, diffusers_vq
from mmjax.convert.name_table import Table
from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models import autoencoder_kl
from mmjax.models.vqgan import VqganNet

ABOUT = "diffusers' AutoencoderKL: a folder with config.json"
TASK = "autoencoder_kl"
CLASS = "AutoencoderKL"
_TRAINING = ("latents/", "params/log_variance")


def detect(source: Source) -> bool:
    return source.config_json.get("_class_name") == CLASS


def table(keys: Iterable[str]) -> Table:
    return Table(*_vqgan.diffusers(8, diffusers_vq.naming(keys)))


def to_mmjax(source: Source) -> formats.Model:
    theirs = source.config_json
    maps = [theirs.get(f"use_{name}conv", True) for name in ("quant_", "post_quant_")]
    if maps[0] != maps[1]:
        raise UserError(
            f"{source.place}: use_quant_conv is {maps[0]} and use_post_quant_conv "
            f"{maps[1]}: both or neither fit"
        )
    arrays, kept, net = diffusers_vq.networks(source, [])
    size = int(theirs.get("sample_size", _vqgan.SIZE))
    # with points their map decides; without them hidden is a latent's width
    point = arrays.get("params/decoder/point/kernel")
    autoencoder = {
        "image_size": size,
        "code_dim": net["hidden"] if point is None else point.shape[0],
        "net": net,
        "scale": float(theirs.get("scaling_factor", 0.18215)),
        "shift": float(theirs.get("shift_factor") or 0.0),
    }
    task = {"name": TASK, "autoencoder": autoencoder}
    return formats.Model(task, _vqgan.image_field(size), None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    spec = autoencoder_kl.Spec(**model.task["autoencoder"])
    moments = {key: model.arrays.get(f"latents/{key}") for key in ("mean", "square")}
    scale = spec.scale or float(autoencoder_kl.scale_of(**moments))
    # of training alone, or said by the scale
    rest = {k: v for k, v in model.arrays.items() if not k.startswith(_TRAINING)}
    model = dataclasses.replace(model, arrays=rest)
    if (kind := spec.net.get("kind", "vqgan")) != "vqgan":
        raise UserError(
            f"this autoencoder's networks are of kind {kind!r}: only 'vqgan' fits"
        )
    net = VqganNet(**spec.net)
    if net.points and spec.code_dim != net.hidden:
        raise UserError(
            f"latents of {spec.code_dim} channels and hidden {net.hidden}: diffusers "
            "has one number for both"
        )
    config = {
        "sample_size": spec.image_size,
        "scaling_factor": scale,
        "shift_factor": spec.shift or None,
        "use_quant_conv": net.points,
        "use_post_quant_conv": net.points,
    }
    return diffusers_vq.exported(CLASS, model, net, [], config)


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of diffusers' model, opened from `folder`."""
    import diffusers
    import torch

    model = diffusers.AutoencoderKL.from_pretrained(folder).eval()
    with torch.no_grad():
        latents = model.encode(_reference.pixels(batch)).latent_dist.mode()
        images = model.decode(latents).sample
    shift = model.config.shift_factor or 0.0
    scaled = (latents - shift) * model.config.scaling_factor
    return {
        "encode/latent": _reference.channels_last(scaled),
        "reconstruct/image": _reference.shown(images / 2 + 0.5),
    }
