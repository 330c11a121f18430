"""Stable Diffusion 1 and 2 in the single files of CompVis and Stability AI.

They say neither the schedule nor what the UNet predicts. Version 1 is read as its
training config says: eps, 512 pixels. Version 2, known by its text tower of open_clip,
is read as the larger of its two models: v, 768 pixels. For the other, "base", add
    --config.task.prediction=eps --config.task.stage1.image_size=512
    --config.data.fields.image.size=512
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_text,
    _clip_tokenizer,
    _unet,
    _vqgan,
    diffusers_sd,
)
from mmjax.convert.name_table import Table
from mmjax.convert.read import Source
from mmjax.convert.transforms import POINT
from mmjax.errors import UserError
from mmjax.models.unet import Numbers

ABOUT = "Stable Diffusion 1 or 2, one file of CompVis or Stability AI"
TASK = diffusers_sd.TASK
NET, STAGE1 = "model.diffusion_model", "first_stage_model"
# The text tower of version 1 and of version 2
TOWERS = "cond_stage_model.transformer", "cond_stage_model.model"
SCALE, HEAD_WIDTH = 0.18215, 64
SCHEDULE = {"kind": "scaled_linear", "steps": 1000, "start": 0.00085, "end": 0.012}
# PLMS, as in the original's txt2img.py
SAMPLING = {"sampler": "plms", "steps": 50, "guidance": 7.5, "spacing": "leading"}
SAMPLING |= {"offset": 1, "clean": False}
# Averaged weights, of which the file holds a copy under the plain names; losses, and
# numbers that follow from the schedule
ASIDE = ("model_ema.", f"{STAGE1}.loss.", "betas", "alphas_", "sqrt_", "log_one_minus_")
ASIDE += ("posterior_", "lvlb_weights", "logvar", "scale_factor")


def detect(source: Source) -> bool:
    return any(key.startswith(f"{NET}.input_blocks.") for key in source.tensors)


def table(keys: Iterable[str]) -> Table:
    """All parts' names."""
    own = (k.removeprefix(f"{NET}.") for k in keys if k.startswith(NET))
    parts = {
        NET: _unet.compvis(own, dense=False),
        STAGE1: _vqgan.taming(),
        TOWERS[0]: _clip_text.RULES,
        TOWERS[1]: _clip_text.OPEN_CLIP_RULES,
    }
    rules = (rule.below(f"{part}.", "") for part in parts for rule in parts[part])
    return Table(*rules, skip=[f"{head}*" for head in ASIDE])


def to_mmjax(source: Source) -> formats.Model:
    used = {k: v for k, v in source.tensors.items() if not k.startswith(ASIDE)}
    parts = formats.split(used, NET, STAGE1, *TOWERS)
    left = used.keys() - {f"{p}.{key}" for p, own in parts.items() for key in own}
    if left:
        raise UserError(
            f"{source.place}: no part of Stable Diffusion for {min(left)} and "
            f"{len(left) - 1} more"
        )
    for name, own in (("UNet", parts[NET]), ("autoencoder", parts[STAGE1])):
        if not own:
            raise UserError(
                f"{source.place} holds no {name}: take the whole checkpoint"
            )
    net, arrays, kept = _net(_part(source, parts[NET]))
    part = _part(source, parts[STAGE1])
    stage1, kept_stage1 = formats.loaded(Table(*_vqgan.taming()), part)
    second = bool(parts[TOWERS[1]])
    if second:
        tower, text, kept_text = _clip_text.of_open_clip(parts[TOWERS[1]], source.place)
    elif parts[TOWERS[0]]:
        own = parts[TOWERS[0]]
        files = {"config.json": _clip_text.config_of(own)}
        part = dataclasses.replace(source, tensors=own, files=files)
        tower, text, kept_text = _clip_text.to_mmjax(part)
    else:
        raise UserError(
            f"{source.place} holds no text tower below {' or '.join(TOWERS)}: only "
            "Stable Diffusion 1 and 2 fit"
        )
    vae = _vqgan.numbers(stage1, source.place)
    point = stage1["params/decoder/point/kernel"]
    factor = 2 ** (len(vae["mult"]) - 1)
    task = diffusers_sd.assembled(
        net,
        {"code_dim": point.shape[0], "net": vae, "scale": SCALE},
        tower,
        side=(768 if second else 512) // factor,
        end_padding=not second,
        prediction="v" if second else "eps",
        schedule=SCHEDULE,
        sampling=SAMPLING,
    )
    diffusers_sd.matched(arrays, task, source.place)
    arrays |= {diffusers_sd.STAGE1 + path: value for path, value in stage1.items()}
    return formats.Model(
        task,
        _vqgan.image_field(task["stage1"]["image_size"]),
        _clip_tokenizer.clip(tower["context"], source),
        arrays | _clip_text.frozen(text),
        {"unet": kept, "vae": kept_stage1, "text": kept_text},
    )


def _part(source: Source, tensors: formats.Arrays) -> Source:
    return dataclasses.replace(source, tensors=tensors, files={})


def _net(source: Source) -> tuple[dict[str, Any], dict, dict]:
    """(`config.task.net`, our arrays, `kept`): version 2 has heads of one width, which
    its dense maps tell it by."""
    dense = _unet.linear(source.tensors)
    rules = Table(*_unet.compvis(source.tensors, dense=dense))
    arrays, kept = formats.loaded(rules, source)
    net = {"kind": "unet", **_unet.numbers(arrays, source.place)}
    if dense:
        net["head_width"] = HEAD_WIDTH
    return net, arrays, kept | {"dense": dense}


def from_mmjax(model: formats.Model) -> formats.Export:
    task, kept = model.task, model.kept
    diffusers_sd.fits(task)
    net = Numbers(**{k: v for k, v in task["net"].items() if k != "kind"})
    if kept.get("unet", {}).get("dense") or not task["end_padding"]:
        raise UserError(
            "a single file of Stable Diffusion 2 holds one more block of its text "
            "tower, which was not kept: use --to diffusers_sd"
        )
    rules = {
        NET: _unet.compvis_rules(len(net.mult), net.depth, POINT),
        STAGE1: _vqgan.taming(),
    }
    text = _clip_text.of_model(model)
    owned = {
        NET: _picked(model, _unet.NET, _unet.NET, kept.get("unet", {})),
        STAGE1: _picked(model, diffusers_sd.STAGE1, "", kept.get("vae", {})),
    }
    tensors = {
        f"{part}.{key}": value
        for part, own in owned.items()
        for key, value in formats.saved(Table(*rules[part]), own).items()
    }
    tensors |= {
        f"{TOWERS[0]}.{key}": value
        for key, value in formats.saved(_clip_text.TABLE, text).items()
    }
    return formats.Export({"model.safetensors": tensors}, {})


def _picked(
    model: formats.Model, head: str, place: str, kept: Mapping[str, Any]
) -> formats.Model:
    """The arrays below `head`, which becomes `place`."""
    arrays = {
        place + path.removeprefix(head): value
        for path, value in model.arrays.items()
        if path.startswith(head)
    }
    return dataclasses.replace(model, arrays=arrays, kept=kept)
