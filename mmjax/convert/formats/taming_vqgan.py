"""taming-transformers' VQGAN: f16 with 1024 or 16384 codes, and its like.

A Lightning checkpoint (`last.ckpt`) or a state dict. The config lies in a YAML file
that is not needed: all numbers but the size of the pictures are in the shapes. The
discriminator and the perceptual loss (`loss.*`) are left out.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference_tokenizers, _vqgan
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read
from mmjax.errors import UserError
from mmjax.models.vqgan import VqganNet

ABOUT = "taming-transformers' VQGAN: a checkpoint or state dict"
TASK = "vqvae"
SIZE = 256  # pixels; the networks are convolutional and take others
CODES = "quantize.embedding.weight"
TABLE = Table(*_vqgan.taming(), Rule(CODES, "params/codebook"))
# Training's own: discriminator, LPIPS, and the class weights of a segmentation model.
TRAINING = ("loss.", "colorize")


def detect(source: Source) -> bool:
    keys = source.tensors
    return CODES in keys and "encoder.down.0.block.0.conv1.weight" in keys


def known(keys: Iterable[str]) -> int:
    return TABLE.known(keys)


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept = formats.loaded(TABLE, networks(source, TRAINING))
    vocab_size, code_dim = arrays["params/codebook"].shape
    arrays["likelihood/variance"] = formats.unit()
    net = _vqgan.numbers(arrays, source.place)
    spec = {
        "kind": "vqvae",
        "image_size": SIZE,
        "vocab_size": vocab_size,
        "code_dim": code_dim,
        "ema": False,
        "net": {"kind": "vqgan", **net},
    }
    task = {"name": "vqvae", "tokenizer": spec, "kmeans": 0, "revive_below": 0.0}
    return formats.Model(task, picture(SIZE), None, arrays, kept)


def networks(source: Source, left_out: tuple[str, ...]) -> Source:
    """The source without the keys that begin so."""
    kept = {k: v for k, v in source.tensors.items() if not k.startswith(left_out)}
    return Source(source.place, kept, source.files, source.folder)


def picture(size: int) -> dict:
    """Both papers train on the short side resized, and the centre."""
    return {"size": size, "mode": "crop", "method": "bilinear"}


def from_mmjax(model: formats.Model) -> formats.Export:
    fits(model, ema=False)
    arrays = {k: v for k, v in model.arrays.items() if k != "likelihood/variance"}
    tensors = formats.saved(TABLE, formats.replaced(model, arrays))
    return formats.Export({"model.safetensors": tensors})


def fits(model: formats.Model, *, ema: bool, groups: int | None = 32) -> None:
    """UserError unless a tokenizer has VQGAN's networks, and so many groups."""
    spec = model.task["tokenizer"]
    kind = spec["net"].get("kind", "conv")
    if kind != "vqgan":
        raise UserError(
            f"this tokenizer's networks are of kind {kind!r}: only 'vqgan' fits"
        )
    have = spec["net"].get("groups", 32)
    if groups not in (None, have):
        raise UserError(f"{have} groups in a norm: this format has {groups} always")
    if spec.get("ema", ema) != ema:
        raise UserError("a codebook kept by moving averages: the format has none")


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of taming-transformers' networks with the arrays in `folder`."""
    source = read(folder)
    return compared(source, to_mmjax(source).task["tokenizer"], batch)


def compared(
    source: Source, spec: Mapping[str, Any], batch: Mapping[str, np.ndarray]
) -> dict:
    """What the original gives for a batch, by its arrays and our numbers of them."""
    codes = spec["vocab_size"], spec["code_dim"]
    return _reference_tokenizers.taming(
        source.tensors, VqganNet(**spec["net"]), codes, batch
    )
