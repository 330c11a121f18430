"""taming-transformers' VQGAN with a Gumbel bottleneck (f = 8, 8192 codes)."""

import pathlib
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference, _vqgan, taming_vqgan
from mmjax.convert.formats._rules import layer
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read
from mmjax.convert.transforms import POINT

ABOUT = "taming-transformers' GumbelVQ: a checkpoint or state dict"
TASK = "gumbel_vq"
CODES = "quantize.embed.weight"
TABLE = Table(
    *_vqgan.taming(),
    Rule(CODES, "params/codebook"),
    *layer("quantize.proj", "params/logits_of", POINT),
)


def detect(source: Source) -> bool:
    keys = source.tensors
    return CODES in keys and "encoder.down.0.block.0.conv1.weight" in keys


def to_mmjax(source: Source) -> formats.Model:
    return taming_vqgan.imported(TASK, TABLE, source)


def from_mmjax(model: formats.Model) -> formats.Export:
    tensors = formats.saved(TABLE, _vqgan.exported(model))
    return formats.Export({"model.safetensors": tensors})


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of taming-transformers' networks with the arrays in `folder`."""
    source = read(folder)
    return _reference.taming(source, to_mmjax(source).task["tokenizer"], batch)
