"""OpenAI's dVAE: encoder.pkl and decoder.pkl in one folder, or their state dicts.

The two files hold whole modules in torch's archive; they are read for their arrays
(see mmjax.convert.torch_archive). Keys are led by `encoder.` and `decoder.` here.
"""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import _reference_tokenizers
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source, read
from mmjax.convert.transforms import CONV, POINT, Form
from mmjax.errors import UserError

ABOUT = "OpenAI's dVAE: a folder with encoder.pkl and decoder.pkl"
TASK = "dvae"
SIZE = 256  # pixels; the networks are convolutional and take others


def _conv(theirs: str, ours: str, form: Form = CONV) -> list[Rule]:
    return [
        Rule(f"{theirs}.w", f"{ours}/kernel", form),
        Rule(f"{theirs}.b", f"{ours}/bias"),
    ]


def _rules() -> list[Rule]:
    rules = []
    # The kernels of a block's four convolutions, and the one at either end.
    sides = {"encoder": ((3, 3, 3, 1), 7), "decoder": ((1, 3, 3, 3), 1)}
    for side, (kernels, first) in sides.items():
        ours, theirs = f"params/{side}", f"{side}.blocks"
        rules += _conv(
            f"{theirs}.input", f"{ours}/conv_in", POINT if first == 1 else CONV
        )
        block, own = "group_{g}.block_{b}", "group_{g}_block_{b}"
        rules += _conv(f"{theirs}.{block}.id_path", f"{ours}/{own}/skip", POINT)
        for i, kernel in enumerate(kernels, 1):
            rules += _conv(
                f"{theirs}.{block}.res_path.conv_{i}",
                f"{ours}/{own}/conv_{i}",
                POINT if kernel == 1 else CONV,
            )
        rules += _conv(f"{theirs}.output.conv", f"{ours}/out", POINT)
    return rules


TABLE = Table(*_rules())


def detect(source: Source) -> bool:
    keys = source.tensors
    return "encoder.blocks.input.w" in keys and "decoder.blocks.input.w" in keys


def known(keys: Iterable[str]) -> int:
    return TABLE.known(keys)


def to_mmjax(source: Source) -> formats.Model:
    arrays, kept = formats.loaded(TABLE, source)
    groups, blocks = 0, 0
    for path in arrays:
        name = path.split("/")[2]
        if name.startswith("group_"):
            _, group, _, block = name.split("_")
            groups, blocks = max(groups, int(group)), max(blocks, int(block))
    spec = {
        "kind": "dvae",
        "image_size": SIZE,
        "vocab_size": arrays["params/encoder/out/bias"].shape[0],
        "hidden": arrays["params/encoder/conv_in/bias"].shape[0],
        "groups": groups,
        "blocks_per_group": blocks,
        "init_width": arrays["params/decoder/conv_in/bias"].shape[0],
    }
    arrays["relaxation/temperature"] = np.asarray(1 / 16, np.float32)
    # As openai/DALL-E's notebook prepares a picture: the short side, then the centre.
    image = {"size": SIZE, "mode": "crop", "method": "lanczos"}
    task = {"name": TASK, "tokenizer": spec}
    return formats.Model(task, image, None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    left = "relaxation/temperature"
    arrays = {k: v for k, v in model.arrays.items() if k != left}
    both = formats.saved(TABLE, formats.replaced(model, arrays))
    files = {}
    for side in ("encoder", "decoder"):
        head = f"{side}."
        files[f"{side}.safetensors"] = {
            k.removeprefix(head): v for k, v in both.items() if k.startswith(head)
        }
    if not all(files.values()):
        raise UserError("a dVAE has an encoder and a decoder, and one is empty")
    return formats.Export(files)


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of OpenAI's networks with the arrays in `folder`."""
    source = read(folder)
    return _reference_tokenizers.dall_e(
        source.tensors, to_mmjax(source).task["tokenizer"], batch
    )
