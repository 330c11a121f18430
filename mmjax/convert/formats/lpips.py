"""LPIPS with VGG-16 (Zhang et al. 2018): the state dict of the `lpips` package.

A perceptual loss is no model of its own here: the run that comes of it is one of task
adversarial with LPIPS as `frozen/features`, beside the smallest tokenizer, all zeros.
A run takes it by `config.graft.features=RUN`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import tree
from mmjax.convert import formats
from mmjax.convert.formats._rules import layer
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import CONV, one
from mmjax.errors import UserError
from mmjax.models import image_tokenizer
from mmjax.models.discriminator import PatchDiscriminator, Spec

ABOUT = "LPIPS of the lpips package, net='vgg': a state dict"
TASK = "adversarial"
SIZE, PLACE = 64, "frozen/features/params"  # the network takes multiples of 16
# Where convolutions lie among the layers of torchvision's vgg16, by stage
LAYERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
HEAD = one(lambda a: a.reshape(-1), lambda a: a.reshape(1, -1, 1, 1))  # (1, c, 1, 1)
TABLE = Table(
    *(
        rule
        for k, numbers in enumerate(LAYERS)
        for i, number in enumerate(numbers)
        for rule in layer(
            f"net.slice{k + 1}.{number}", f"{PLACE}/stage_{k}_conv_{i}", CONV
        )
    ),
    *(Rule(f"lin{k}.model.1.weight", f"{PLACE}/stage_{k}", HEAD) for k in range(5)),
    skip=("scaling_layer.*", "lins.*"),  # constants, and the same weights once more
)
STAGE1 = {
    "name": "vqvae",
    "tokenizer": {
        "kind": "vqvae",
        "image_size": SIZE,
        "vocab_size": 2,
        "code_dim": 1,
        "ema": False,
        "net": {"kind": "conv", "widths": (1,), "stem": 8, "depth": 0},
    },
    "kmeans": 0,
    "revive_below": 0.0,
}
PLAYER = {"width": 1, "depth": 1, "norm": "none"}


def detect(source: Source) -> bool:
    return {"net.slice1.0.weight", "lin0.model.1.weight"} <= source.tensors.keys()


def to_mmjax(source: Source) -> formats.Model:
    tensors = {k: v for k, v in source.tensors.items() if not TABLE.skips(k)}
    own = Source(source.place, tensors, source.files, source.folder)
    arrays, kept = formats.loaded(TABLE, own)
    task = {"name": TASK, "stage1": STAGE1, "discriminator": PLAYER}
    task["perceptual"] = {"kind": "lpips", "image_size": SIZE, **_sizes(arrays)}
    return formats.Model(task, {"size": SIZE}, None, _zeros() | arrays, kept)


def _sizes(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """widths of the stages; the depths are those of VGG-16."""
    return {"widths": tuple(len(arrays[f"{PLACE}/stage_{k}"]) for k in range(5))}


def _zeros() -> dict[str, np.ndarray]:
    """The variables of the tokenizer and the discriminator beside it."""
    image = jnp.zeros((1, SIZE, SIZE, 3))

    def init() -> dict[str, Any]:
        key = jax.random.key(0)
        module = image_tokenizer.build(STAGE1["tokenizer"])
        variables = dict(module.init(key, image))
        player = PatchDiscriminator(Spec(**PLAYER)).init(key, image)["params"]
        return {**variables, "params": {**variables["params"], "discriminator": player}}

    shapes = tree.flatten(jax.eval_shape(init))
    return {path: np.zeros(s.shape, s.dtype) for path, s in shapes.items()}


def from_mmjax(model: formats.Model) -> formats.Export:
    kind = dict(model.task["perceptual"]).get("kind")
    if kind != "lpips":
        raise UserError(
            f"the run's perceptual loss is of kind {kind or 'classifier'!r}: only "
            "'lpips' fits"
        )
    own = {k: v for k, v in model.arrays.items() if k.startswith(f"{PLACE}/")}
    left = "the tokenizer and the discriminator are left out"
    model = formats.Model(model.task, model.image, None, own, model.kept)
    tensors = formats.saved(TABLE, model)
    return formats.Export({"model.safetensors": tensors}, notes=(left,))
