"""OpenAI's dVAE: encoder.pkl and decoder.pkl in one folder, or their state dicts.

The two files hold whole modules in torch's archive; they are read for their arrays
(see mmjax.convert.torch_archive). Keys are led by `encoder.` and `decoder.` here.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference
from mmjax.convert.formats._rules import layer
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read
from mmjax.convert.transforms import CONV, POINT, Form
from mmjax.errors import UserError

ABOUT = "OpenAI's dVAE: a folder with encoder.pkl and decoder.pkl"
TASK = "dvae"
SIZE = 256  # pixels; the networks are convolutional and take others
TEMPERATURE = "relaxation/temperature"  # of ours alone


def _conv(theirs: str, ours: str, form: Form) -> list[Rule]:
    return layer(theirs, ours, form, ends=(".w", ".b"))


def _rules(side: str, first: Form, forms: tuple[Form, ...]) -> list[Rule]:
    """Rules of a network: the forms of its first layer, and of a block's four."""
    theirs, ours = f"{side}.blocks", f"params/{side}"
    block, own = f"{theirs}.group_{{g}}.block_{{b}}", f"{ours}/group_{{g}}_block_{{b}}"
    rules = [
        *_conv(f"{theirs}.input", f"{ours}/conv_in", first),
        *_conv(f"{block}.id_path", f"{own}/skip", POINT),
        *_conv(f"{theirs}.output.conv", f"{ours}/out", POINT),
    ]
    for i, form in enumerate(forms, 1):
        rules += _conv(f"{block}.res_path.conv_{i}", f"{own}/conv_{i}", form)
    return rules


TABLE = Table(
    *_rules("encoder", CONV, (CONV, CONV, CONV, POINT)),
    *_rules("decoder", POINT, (POINT, CONV, CONV, CONV)),
)


def detect(source: Source) -> bool:
    return {"encoder.blocks.input.w", "decoder.blocks.input.w"} <= source.tensors.keys()


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept = formats.loaded(TABLE, source)
    names = [re.match(r"params/\w+/group_(\d+)_block_(\d+)/", path) for path in arrays]
    groups, blocks = (max(int(hit[i]) for hit in names if hit) for i in (1, 2))
    spec = {
        "kind": "dvae",
        "image_size": SIZE,
        "vocab_size": arrays["params/encoder/out/bias"].shape[0],
        "hidden": arrays["params/encoder/conv_in/bias"].shape[0],
        "groups": groups,
        "blocks_per_group": blocks,
        "init_width": arrays["params/decoder/conv_in/bias"].shape[0],
    }
    arrays[TEMPERATURE] = np.asarray(1 / 16, np.float32)
    # As openai/DALL-E's notebook prepares an image: the short side, then the centre.
    image = {"size": SIZE, "mode": "crop", "method": "lanczos"}
    task = {"name": TASK, "tokenizer": spec}
    return formats.Model(task, image, None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    arrays = {k: v for k, v in model.arrays.items() if k != TEMPERATURE}
    tensors = formats.saved(TABLE, dataclasses.replace(model, arrays=arrays))
    sides = formats.split(tensors, "encoder", "decoder")
    if not all(sides.values()):
        raise UserError("a dVAE has an encoder and a decoder, and one is empty")
    return formats.Export({f"{side}.safetensors": t for side, t in sides.items()})


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of OpenAI's networks with the arrays in `folder`."""
    source = read(folder)
    return _reference.dall_e(source, to_mmjax(source).task["tokenizer"], batch)
