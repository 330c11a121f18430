"""What the formats of CLIP-like models share: our config's side of them."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.dual_encoder import SCALE_MAX, DualEncoder
from mmjax.models.resnet import ResNet
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT

HALF = (0.5, 0.5, 0.5)
# ViT of CLIP and of SigLIP; towers of ours that only we have are refused on export.
_KINDS = {ViT: "vit", ResNet: "resnet"}
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}


def task(
    image: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    embed_dim: int,
    vocab_size: int,
    context: int,
    image_size: int,
    act: str,
    sigmoid: bool = False,
    mean: tuple[float, ...] = presets.CLIP_MEAN,
    std: tuple[float, ...] = presets.CLIP_STD,
) -> dict[str, Any]:
    """`config.task` of a dual encoder; `sigmoid`: SigLIP's loss, bias and scale."""
    return {
        "name": "clip",
        "image": dict(image),
        "text": dict(text),
        "embed_dim": embed_dim,
        "vocab_size": vocab_size,
        "context": context,
        "image_size": image_size,
        "act": act,
        "loss_name": "sigmoid" if sigmoid else "info_nce",
        "max_scale": 0.0 if sigmoid else SCALE_MAX,
        "mean": tuple(mean),
        "std": tuple(std),
    }


def dual(task: Mapping[str, Any]) -> DualEncoder:
    """The Linen module of a complete `config.task`: its fields are the numbers.

    Raises UserError for a tower that no public format has.
    """
    model = presets.build(
        task["preset"],
        image=task["image"] or None,
        text=task["text"] or None,
        embed_dim=task["embed_dim"],
        vocab_size=task["vocab_size"],
        context=task["context"],
        image_size=task["image_size"],
        act=task["act"],
        init_bias=-10.0 if task["loss_name"] == "sigmoid" else None,
        max_scale=task["max_scale"],
    )
    if not isinstance(model.image, (ViT, ResNet)):
        raise refused("the image tower", model.image, "vit or resnet")
    if not isinstance(model.text, TextTransformer):
        raise refused("the text tower", model.text, "transformer")
    return model


def refused(what: str, tower: nn.Module, fits: str) -> UserError:
    """The error for a tower that a format has no place for."""
    return UserError(
        f"{what} is a {type(tower).__name__}, which no other library has: only kind "
        f"{fits} can be written in this format"
    )


def heads(tower: nn.Module) -> int:
    """Attention heads, where 0 stands for width / 64."""
    return tower.heads or max(1, tower.features // 64)


def ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` whose product with `width`, rounded down, is `hidden`."""
    found = hidden / width
    return found if int(found * width) == hidden else math.nextafter(found, math.inf)


def hidden(tower: nn.Module) -> int:
    """Width inside the MLPs of a transformer."""
    return int(tower.mlp_ratio * tower.width)


def resample(image: Mapping[str, Any]) -> int:
    """Pillow's number of a resize method, as preprocessor files give it."""
    return _FILTERS[image["method"].removeprefix("pil_")]


def method(number: int) -> str:
    """Our resize method, Pillow's own, of Pillow's number."""
    names = {v: k for k, v in _FILTERS.items()}
    if number not in names:
        raise UserError(f"resample {number} is not among Pillow's {names}")
    return f"pil_{names[number]}"


def activation(name: str, names: Mapping[str, str], where: str) -> str:
    """`name` translated by `names`; UserError where it is not among them."""
    if name not in names:
        raise UserError(f"{where} is {name!r}: only {', '.join(names)} fit")
    return names[name]


def same(what: str, *values: Any) -> Any:
    """The one value that a format has room for; UserError where they differ."""
    if len(set(values)) > 1:
        raise UserError(
            f"{what} is {' and '.join(map(str, values))} in the two towers: this "
            "format has room for one"
        )
    return values[0]
