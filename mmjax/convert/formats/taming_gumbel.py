"""taming-transformers' VQGAN with a Gumbel bottleneck (f = 8, 8192 codes)."""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _vqgan
from mmjax.convert.formats._vqgan import conv
from mmjax.convert.formats.taming_vqgan import (
    SIZE,
    TRAINING,
    compared,
    fits,
    networks,
    picture,
)
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read
from mmjax.convert.transforms import POINT

ABOUT = "taming-transformers' GumbelVQ: a checkpoint or state dict"
TASK = "gumbel_vq"
CODES = "quantize.embed.weight"
TABLE = Table(
    *_vqgan.taming(),
    Rule(CODES, "params/codebook"),
    *conv("quantize.proj", "params/logits_of", POINT),
)


def detect(source: Source) -> bool:
    keys = source.tensors
    return CODES in keys and "encoder.down.0.block.0.conv1.weight" in keys


def known(keys: Iterable[str]) -> int:
    return TABLE.known(keys)


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept = formats.loaded(TABLE, networks(source, TRAINING))
    vocab_size, code_dim = arrays["params/codebook"].shape
    arrays["likelihood/variance"] = formats.unit()
    spec = {
        "kind": TASK,
        "image_size": SIZE,
        "vocab_size": vocab_size,
        "code_dim": code_dim,
        "net": {"kind": "vqgan", **_vqgan.numbers(arrays, source.place)},
    }
    task = {"name": TASK, "tokenizer": spec}
    return formats.Model(task, picture(SIZE), None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    fits(model, ema=False)
    arrays = {k: v for k, v in model.arrays.items() if k != "likelihood/variance"}
    tensors = formats.saved(TABLE, formats.replaced(model, arrays))
    return formats.Export({"model.safetensors": tensors})


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of taming-transformers' networks with the arrays in `folder`."""
    source = read(folder)
    return compared(source, to_mmjax(source).task["tokenizer"], batch)
