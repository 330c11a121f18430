"""taming-transformers' VQGAN: f16 with 1024 or 16384 codes, and its like.

A Lightning checkpoint (`last.ckpt`) or a state dict. The config lies in a YAML file
that is not needed: all numbers but the size of the images are in the shapes.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference, _vqgan
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read

ABOUT = "taming-transformers' VQGAN: a checkpoint or state dict"
TASK = "vqvae"
CODES = "quantize.embedding.weight"
# Training's own: discriminator, LPIPS, and the class weights of a segmentation model.
TRAINING = ("loss.", "colorize")
RULES = [*_vqgan.taming(), Rule(CODES, "params/codebook")]
TABLE = Table(*RULES)


def detect(source: Source) -> bool:
    keys = source.tensors
    return CODES in keys and "encoder.down.0.block.0.conv1.weight" in keys


def to_mmjax(source: Source) -> formats.Model:
    return imported(TASK, TABLE, source)


def imported(kind: str, table: Table, source: Source) -> formats.Model:
    """Our model of a checkpoint, without the variables of training."""
    kept = {k: v for k, v in source.tensors.items() if not k.startswith(TRAINING)}
    networks = Source(source.place, kept, source.files, source.folder)
    arrays, kept = formats.loaded(table, networks)
    net = _vqgan.numbers(arrays, source.place)
    return _vqgan.imported(kind, arrays, kept, size=_vqgan.SIZE, net=net)


def from_mmjax(model: formats.Model) -> formats.Export:
    tensors = formats.saved(TABLE, _vqgan.exported(model))
    return formats.Export({"model.safetensors": tensors})


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of taming-transformers' networks with the arrays in `folder`."""
    source = read(folder)
    return _reference.taming(source, to_mmjax(source).task["tokenizer"], batch)
