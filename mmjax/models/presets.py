"""Named models and `build`, the door through which dual encoders are made.

    model = presets.build("ViT-B/32")
    model = presets.build(
        image={"kind": "conv", "width": 32, "depths": (1, 1, 2, 2)},
        text={"kind": "cbow", "width": 256},
        embed_dim=256, vocab_size=4096, context=32, image_size=32,
    )
    model = presets.build("RN50", text="ViT-B/32", act="quick_gelu", dtype="bfloat16")

A tower is a preset's name (its tower of that side) or a mapping of `kind` and the
fields of the kind's module. The numbers of the named sizes: Radford et al. 2021,
tables 19 and 20.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models.dual_encoder import SCALE_MAX, DualEncoder
from mmjax.models.efficientnet import EfficientNetLite
from mmjax.models.resnet import ConvPool, ConvTower, ResNet
from mmjax.models.text import CBOW, LSTM, TextTransformer
from mmjax.models.vit import ViT

_LINEN = ("parent", "name")  # fields of every module
IMAGE_KINDS = {
    "conv": ConvTower,
    "conv_pool": ConvPool,
    "efficientnet_lite": EfficientNetLite,
    "resnet": ResNet,
    "vit": ViT,
}
TEXT_KINDS = {"cbow": CBOW, "transformer": TextTransformer, "lstm": LSTM}
Tower = str | Mapping[str, Any]


class UnknownKeyError(UserError, TypeError):
    """A key or name that does not exist; the message gives the nearest that does."""


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of pixels in [0, 1], by channel
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class Preset:
    """The numbers of one named dual encoder."""

    embed_dim: int
    image_size: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    vocab_size: int = 49408
    context: int = 77


def _resnet(depths: tuple[int, ...], width: int) -> dict[str, Any]:
    return {"kind": "resnet", "depths": depths, "width": width}


def _conv(depths: tuple[int, ...], width: int) -> dict[str, Any]:
    return {"kind": "conv", "depths": depths, "width": width}


def _vit(width: int, depth: int, patch: int) -> dict[str, Any]:
    return {"kind": "vit", "width": width, "depth": depth, "patch": patch}


def _text(width: int, depth: int) -> dict[str, Any]:
    return {"kind": "transformer", "width": width, "depth": depth}


_CBOW = {"kind": "cbow", "width": 256}
PRESETS: dict[str, Preset] = {
    "RN50": Preset(1024, 224, _resnet((3, 4, 6, 3), 64), _text(512, 12)),
    "RN101": Preset(512, 224, _resnet((3, 4, 23, 3), 64), _text(512, 12)),
    "RN50x4": Preset(640, 288, _resnet((4, 6, 10, 6), 80), _text(640, 12)),
    "RN50x16": Preset(768, 384, _resnet((6, 8, 18, 8), 96), _text(768, 12)),
    "RN50x64": Preset(1024, 448, _resnet((3, 15, 36, 10), 128), _text(1024, 12)),
    "ViT-B/32": Preset(512, 224, _vit(768, 12, 32), _text(512, 12)),
    "ViT-B/16": Preset(512, 224, _vit(768, 12, 16), _text(512, 12)),
    "ViT-L/14": Preset(768, 224, _vit(1024, 24, 14), _text(768, 12)),
    "ViT-L/14@336": Preset(768, 336, _vit(1024, 24, 14), _text(768, 12)),
    # Sizes for CPUs: ours, not the paper's.
    "ViT-Mu/4@32": Preset(128, 32, _vit(128, 4, 4), _text(128, 2), 4096, 32),
    "ViT-Ti/8@64": Preset(256, 64, _vit(192, 6, 8), _text(192, 4), 8192, 32),
    "ViT-S/16@128": Preset(384, 128, _vit(384, 12, 16), _text(256, 6), 8192, 48),
    "Conv-S@32": Preset(256, 32, _conv((1, 1, 1), 32), _CBOW, 4096, 32),
    "Conv-B@64": Preset(256, 64, _conv((1, 1, 2, 2), 48), _text(256, 4), 8192, 48),
}


_SIZES = (
    "width",
    "depth",
    "depths",
    "widths",
    "patch",
    "stem",
    "groups",
    "image_size",
    "context",
)


def check_known(what: str, key: str, known: list[str]) -> None:
    """UnknownKeyError, naming the nearest of `known`, unless `key` is among them."""
    if key not in known:
        raise UnknownKeyError(f"{what} has no {key!r}{schema.suggest(key, known)}")


def preset(name: str) -> Preset:
    """The preset called `name`."""
    check_known("presets", name, list(PRESETS))
    return PRESETS[name]


def _tower(side: str, spec: Tower, shared: Mapping[str, Any]) -> nn.Module:
    """The tower a spec describes; `shared` fills fields that it leaves open."""
    kinds = IMAGE_KINDS if side == "image" else TEXT_KINDS
    numbers = dict(getattr(preset(spec), side) if isinstance(spec, str) else spec)
    if "kind" not in numbers:
        raise UserError(
            f"the {side} tower {numbers} needs a kind: one of {', '.join(kinds)}"
        )
    kind = numbers.pop("kind")
    check_known(f"kinds of {side} tower", kind, list(kinds))
    known = [f.name for f in dataclasses.fields(kinds[kind]) if f.name not in _LINEN]
    for key in numbers:
        check_known(f"{side} tower {kind!r}", key, known)
    for key in {"depths", "widths"} & numbers.keys():
        numbers[key] = tuple(numbers[key])
    inherited = {key: value for key, value in shared.items() if key in known}
    for key in _SIZES:  # `heads` and `vocab_size` may be 0: as wide as need be
        size = numbers.get(key, 1)
        each = size if isinstance(size, tuple) else (size,)
        if not all(isinstance(n, int) and n > 0 for n in each):
            raise UserError(f"{key} of the {side} tower is {size!r}: use 1 or more")
    return kinds[kind](**inherited | numbers)


def image_tower(spec: Tower, **shared: Any) -> nn.Module:
    """The image tower of a spec, alone; `shared` fills fields that it leaves open."""
    return _tower("image", spec, shared)


def text_tower(spec: Tower, **shared: Any) -> nn.Module:
    """The text tower of a spec, alone; `shared` fills fields that it leaves open."""
    return _tower("text", spec, shared)


def build(
    name: str = "",
    *,
    image: Tower | None = None,
    text: Tower | None = None,
    embed_dim: int = 0,
    vocab_size: int = 0,
    context: int = 0,
    image_size: int = 0,
    act: str = "gelu",
    scan: bool = False,
    remat: str = "none",
    dtype: str = "float32",
    attention: str = "auto",
    init_scale: float = math.log(1 / 0.07),
    init_bias: float | None = None,
    max_scale: float = SCALE_MAX,
) -> DualEncoder:
    """A dual encoder: a preset, changed where an argument is given, or from parts.

    Args:
      name: preset, or "" to give both towers and the four sizes.
      image: tower: a preset's name or a mapping with `kind`, one of `IMAGE_KINDS`,
        and fields of that module. None or empty: the preset's.
      text: likewise, `kind` one of `TEXT_KINDS`.
      embed_dim, vocab_size, context, image_size: 0 means the preset's.
      act: "gelu", "quick_gelu" (the released CLIP weights), "gelu_tanh", ...
      scan: depth by `nn.scan` (flat compile time) instead of unrolled (faster steps
        on CPU).
      remat: "none", "full", "dots", "dots_no_batch".
      dtype: compute dtype; parameters, softmax, norms and logits stay float32.
      attention: the kernel of transformers, see `mmjax.nn.attention_kernels`.
      init_scale, init_bias, max_scale: see `DualEncoder`; SigLIP has log(10), -10, 0.

    `act`, `scan`, `remat`, `dtype` and `attention` go to every tower with such a field
    that does not set its own. Unknown keys raise `UnknownKeyError`, a TypeError, naming
    the nearest.
    """
    sizes = {
        "embed_dim": embed_dim,
        "vocab_size": vocab_size,
        "context": context,
        "image_size": image_size,
    }
    towers = {"image": image, "text": text}
    if name:
        base = preset(name)
        sizes = {key: value or getattr(base, key) for key, value in sizes.items()}
        towers = {key: value or getattr(base, key) for key, value in towers.items()}
    missing = [key for key, value in (sizes | towers).items() if not value]
    if missing:
        raise UserError(
            f"without a preset, a dual encoder needs {', '.join(missing)}: give them, "
            f"or a preset ({', '.join(PRESETS)})"
        )
    shared = sizes | {"act": act, "scan": scan, "remat": remat}
    shared |= {"dtype": dtype, "attention": attention}
    return DualEncoder(
        image=_tower("image", towers["image"], shared),
        text=_tower("text", towers["text"], shared),
        embed_dim=sizes["embed_dim"],
        init_scale=init_scale,
        init_bias=init_bias,
        max_scale=max_scale,
        dtype=dtype,
    )
