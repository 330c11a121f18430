"""What the formats of CLIP-like models share: our config's side of them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.dual_encoder import SCALE_MAX, DualEncoder
from mmjax.models.resnet import ResNet
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT

# (mean, std) of pixels
CLIP = presets.CLIP_MEAN, presets.CLIP_STD
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}


def task(
    image: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    sigmoid: bool = False,
    stats: tuple = CLIP,
    **sizes: Any,
) -> dict[str, Any]:
    """`config.task` of a dual encoder.

    Args:
      image, text: fields of the towers.
      sigmoid: SigLIP's loss, bias and scale.
      stats: mean and std of the pixels.
      sizes: embed_dim, vocab_size, context, image_size, act.
    """
    return {
        "name": "clip",
        "image": image,
        "text": {"kind": "transformer", **text},
        "loss_name": "sigmoid" if sigmoid else "info_nce",
        "max_scale": 0.0 if sigmoid else SCALE_MAX,
        "mean": tuple(stats[0]),
        "std": tuple(stats[1]),
        **sizes,
    }


def typed(
    config: Any, defaults: Mapping[str, Any], where: str, **kinds: Any
) -> dict[str, Any]:
    """`defaults` with what a config file says of them; its other keys are left.

    kinds: the annotations of keys whose default does not say their type.

    Raises UserError for a value of another type than its default, or a number that is
    no size.
    """
    own = schema.convert(config, Mapping, where)
    out = dict(defaults)
    for key, value in own.items():
        if key not in defaults:
            continue
        kind = kinds.get(key, Any if defaults[key] is None else type(defaults[key]))
        out[key] = schema.convert(value, kind, f"{where}.{key}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not 0 < value < 2**31:
            raise UserError(f"{where}.{key} is {value}: expected more than 0")
    return out


def sizes_agree(task: Mapping[str, Any], arrays: Mapping[str, np.ndarray], where: str):
    """UserError where a config says other depths or lengths than the arrays have.

    Before the model is built of them: a model of 10^9 layers is not even looked at.
    """
    pairs = {}
    for side in ("image", "text"):
        own, prefix = task[side], f"params/{side}"
        if "depth" in own:
            inside = rf"{prefix}/transformer/block_(\d+)/"
            blocks = {hit[1] for path in arrays if (hit := re.match(inside, path))}
            pairs[f"{side} layers"] = own["depth"], len(blocks)
        positions = arrays.get(f"{prefix}/position_embedding")
        if positions is not None and side == "text":
            pairs["positions of text"] = task["context"], len(positions)
        elif positions is not None:
            grid = task["image_size"] // own["patch"]
            extra = own.get("pool") != "map"  # a class token
            pairs["positions of an image"] = grid**2 + extra, len(positions)
    for name, (said, held) in pairs.items():
        if said != held:
            raise UserError(
                f"{where}: {name}: the config says {said}, and the weights have "
                f"{held}: they are of two models"
            )


def dual(task: Mapping[str, Any]) -> DualEncoder:
    """The Linen module of a complete `config.task`: its fields are the numbers.

    Raises UserError for a tower that no public format has.
    """
    sizes = ("embed_dim", "vocab_size", "context", "image_size", "act", "max_scale")
    model = presets.build(
        task["preset"],
        image=task["image"] or None,
        text=task["text"] or None,
        init_bias=-10.0 if task["loss_name"] == "sigmoid" else None,
        **{name: task[name] for name in sizes},
    )
    for side, tower, kinds, fits in (
        ("image", model.image, (ViT, ResNet), "vit or resnet"),
        ("text", model.text, TextTransformer, "transformer"),
    ):
        if not isinstance(tower, kinds):
            raise UserError(
                f"the {side} tower is a {type(tower).__name__}, which no other library "
                f"has: only kind {fits} can be written in this format"
            )
    return model


def heads(tower: nn.Module) -> int:
    """Attention heads, where 0 stands for width / 64."""
    return tower.heads or max(1, tower.features // 64)


def ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` whose product with `width`, rounded down, is `hidden`."""
    ratio = hidden / width
    return ratio if int(ratio * width) == hidden else math.nextafter(ratio, math.inf)


def hidden(tower: nn.Module) -> int:
    """Width inside the MLPs of a transformer."""
    return int(tower.mlp_ratio * tower.width)


def resample(image: Mapping[str, Any]) -> int:
    """Pillow's number of a resize method, as preprocessor files give it."""
    return _FILTERS[image["method"].removeprefix("pil_")]


def notes(image: Mapping[str, Any]) -> tuple[str, ...]:
    """What is lost of a resize method that is not Pillow's: formats name Pillow's."""
    if image["method"].startswith("pil_"):
        return ()
    return (
        f"images are resized by Pillow's {image['method']} there, and here by another "
        "of that name: pixels differ by some grey levels; a run with "
        f"config.data.fields.image.method=pil_{image['method']} resizes as it does",
    )


def method(number: int) -> str:
    """Our resize method, Pillow's own, of Pillow's number."""
    names = {v: k for k, v in _FILTERS.items()}
    if number not in names:
        raise UserError(f"resample {number} is not among Pillow's {names}")
    return f"pil_{names[number]}"


def translated(name: str, names: Mapping[str, str], where: str) -> str:
    """`name` translated by `names`; UserError where it is not among them."""
    if name not in names:
        raise UserError(f"{where} is {name!r}: only {', '.join(names)} fit")
    return names[name]
