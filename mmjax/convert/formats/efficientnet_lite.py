"""EfficientNet-Lite classifiers: the state dict of efficientnet-lite-pytorch."""

import pathlib
import re
from collections.abc import Mapping

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats._rules import layer, norm
from mmjax.convert.name_table import Rule, Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import CONV, POINT, Form
from mmjax.errors import UserError
from mmjax.models import efficientnet

ABOUT = "EfficientNet-Lite 0-4 of efficientnet-lite-pytorch: a state dict"
TASK = "classifier"
STEM, LAST = "_conv_stem.weight", "_fc.weight"
# Of pixels in [0, 1]: its weights are TensorFlow's, which takes (x - 127) / 128.
STATS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
_TOWER, _STATS = "params/tower", "batch_stats/tower"
_BLOCK, _OWN = "_blocks.{i}.", "block_{i}/"


def _rules(conv: str, bn: str, place: str, form: Form, where: str = "") -> list[Rule]:
    """A convolution without a bias, and its batch norm."""
    ours = f"{where}norm_{place}"
    return [
        Rule(f"{conv}.weight", f"{_TOWER}/{where}{place}/kernel", form),
        *norm(bn, f"{_TOWER}/{ours}"),
        Rule(f"{bn}.running_mean", f"{_STATS}/{ours}/mean"),
        Rule(f"{bn}.running_var", f"{_STATS}/{ours}/var"),
    ]


TABLE = Table(
    *_rules("_conv_stem", "_bn0", "stem", CONV),
    *_rules(f"{_BLOCK}_expand_conv", f"{_BLOCK}_bn0", "expand", POINT, _OWN),
    *_rules(f"{_BLOCK}_depthwise_conv", f"{_BLOCK}_bn1", "depthwise", CONV, _OWN),
    *_rules(f"{_BLOCK}_project_conv", f"{_BLOCK}_bn2", "project", POINT, _OWN),
    *_rules("_conv_head", "_bn1", "head", POINT),
    *layer("_fc", "params/head"),
    skip=("*.num_batches_tracked",),
)


def detect(source: Source) -> bool:
    """The stem and the classes; other EfficientNets also have `_se_reduce`."""
    keys = source.tensors.keys()
    return {STEM, LAST} <= keys and not any("._se_" in key for key in keys)


def _size(source: Source) -> str:
    """The name of the network that has these blocks, from shapes."""
    widths = {
        int(hit[1]): len(value)
        for key, value in source.tensors.items()
        if (hit := re.fullmatch(r"_blocks\.(\d+)\._project_conv\.weight", key))
    }
    have = [widths[i] for i in sorted(widths)]
    for name, (width, depth, _) in efficientnet.SIZES.items():
        if have == [block[-1] for block in efficientnet.blocks(width, depth)]:
            return name
    raise UserError(
        f"{source.place}: {len(have)} blocks with {have} channels are none of "
        f"{', '.join(efficientnet.SIZES)}"
    )


def to_mmjax(source: Source) -> formats.Model:
    width, depth, side = efficientnet.SIZES[_size(source)]
    arrays, kept = formats.loaded(TABLE, source)
    tower = {"width_factor": width, "depth_factor": depth}
    task = {
        "name": TASK,
        "image": {"kind": "efficientnet_lite", **tower},
        "classes": len(source.tensors[LAST]),
        "image_size": side,
        "linear": True,
        **STATS,
    }
    image = {"size": side, "mode": "crop", "method": "bicubic"}
    return formats.Model(task, image, None, arrays, kept)


def from_mmjax(model: formats.Model) -> formats.Export:
    kind = dict(model.task["image"]).get("kind")
    if kind != "efficientnet_lite" or not model.task["linear"]:
        raise UserError(
            f"the run's tower is of kind {kind!r} with linear={model.task['linear']}: "
            "only 'efficientnet_lite' with linear=True fits"
        )
    notes = ()
    if any(tuple(model.task[key]) != value for key, value in STATS.items()):
        notes = ("the file does not say the mean and std of pixels: (127, 128) fit it",)
    tensors = formats.saved(TABLE, model)
    return formats.Export({"model.safetensors": tensors}, notes=notes)


def reference(folder: pathlib.Path, batch: Mapping[str, np.ndarray]) -> dict:
    """Outputs of efficientnet-lite-pytorch with the arrays in `folder`."""
    import efficientnet_lite_pytorch
    import safetensors.torch
    import torch

    state = safetensors.torch.load_file(folder / "model.safetensors")
    shapes = {key: value.numpy() for key, value in state.items()}
    name = _size(Source(str(folder), shapes, {}, folder))
    classes = {"num_classes": len(state[LAST])}
    model = efficientnet_lite_pytorch.EfficientNet.from_name(
        f"efficientnet-{name}", **classes
    )
    model.load_state_dict(state)
    model.eval()
    (mean, *_), (std, *_) = STATS["mean"], STATS["std"]
    x = (torch.from_numpy(batch["image"]).float() / 255 - mean) / std
    with torch.no_grad():
        x = x.permute(0, 3, 1, 2)
        features = model.extract_features(x).mean((2, 3))
        return {"logits": model(x).numpy(), "features": features.numpy()}
