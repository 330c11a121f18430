"""Stable Diffusion 1 and 2 as diffusers keeps them: a folder with model_index.json.

Its parts are folders: unet, vae, text_encoder, tokenizer and scheduler. What filters
images (safety_checker) is neither read nor written.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.convert import formats
from mmjax.convert.formats import (
    _clip_text,
    _clip_tokenizer,
    _scheduler,
    _unet,
    _vqgan,
    diffusers_kl,
    diffusers_vq,
)
from mmjax.convert.name_table import Table
from mmjax.convert.read import PIPELINE, Source
from mmjax.errors import UserError
from mmjax.models import autoencoder_kl, presets
from mmjax.models.unet import Numbers

ABOUT = "diffusers' Stable Diffusion 1 or 2: a folder with model_index.json"
TASK = "diffusion"
CLASS = "StableDiffusionPipeline"
STAGE1 = "frozen/autoencoder/"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
FILE = diffusers_vq.FILE


def detect(source: Source) -> bool:
    return PIPELINE in source.files


def table(keys: Iterable[str]) -> Table:
    """All parts' names, of any depth; for a message."""
    parts = {
        "unet": _unet.diffusers(8, dense=False),
        "vae": _vqgan.diffusers(8, _vqgan.DIFFUSERS),
        "text_encoder": _clip_text.RULES,
    }
    rules = (rule.below(f"{part}/", "") for part in parts for rule in parts[part])
    return Table(*rules)


def to_mmjax(source: Source) -> formats.Model:
    index = source.files[PIPELINE]
    if index.get("_class_name") != CLASS:
        raise UserError(
            f"{source.place}: {PIPELINE} is of a {index.get('_class_name')}: only "
            f"{CLASS}, Stable Diffusion 1 and 2, fits"
        )
    parts = {name: source.part(name) for name in PARTS}
    for name, part in parts.items():
        if not part.files:
            raise UserError(f"{source.place} holds no {name}: fetch the whole folder")
    tower, text, kept_text = _clip_text.to_mmjax(parts["text_encoder"])
    vae = diffusers_kl.to_mmjax(parts["vae"])
    where = parts["unet"].place
    net, arrays, kept_net = _net(parts["unet"])
    side = parts["unet"].config_json.get("sample_size")
    if not isinstance(side, int):
        raise UserError(f"{where}: sample_size is {side!r}: give the side of a latent")
    context, vocab_size = tower["context"], tower["vocab_size"]
    words = _clip_tokenizer.of_folder(parts["tokenizer"], context, vocab_size)
    schedule = parts["scheduler"].files.get("scheduler_config.json", {})
    task = assembled(
        net,
        vae.task["autoencoder"],
        tower,
        side=side,
        end_padding=_pad(parts["tokenizer"]) == _clip_tokenizer.END,
        **_scheduler.fields(schedule, f"{source.place}/scheduler"),
    )
    matched(arrays, task, source.place)
    arrays |= {STAGE1 + path: value for path, value in vae.arrays.items()}
    kept = {"unet": kept_net, "vae": vae.kept, "text": kept_text}
    kept |= {"scheduler": dict(schedule), "index": dict(index)}
    size = task["stage1"]["image_size"]
    return formats.Model(
        task,
        _vqgan.image_field(size),
        words or _clip_tokenizer.clip(context, source),
        arrays | _clip_text.frozen(text),
        kept,
    )


def _net(source: Source) -> tuple[dict[str, Any], dict[str, np.ndarray], dict]:
    """(`config.task.net`, our arrays, `kept`) of the part `unet`."""
    theirs = source.config_json
    if (kind := theirs.get("_class_name")) != _unet.CLASS:
        raise UserError(f"{source.place} is a {kind}: only {_unet.CLASS} fits")
    dense = _unet.linear(source.tensors)
    levels = len(theirs.get("block_out_channels", ()))
    rules = Table(*_unet.diffusers(levels, dense=dense))
    arrays, kept = formats.loaded(rules, source)
    net = _unet.numbers(arrays, source.place)
    net |= _unet.of_config(theirs, net, source.place)
    return {"kind": "unet", **net}, arrays, kept | {"config": dict(theirs)}


def _pad(tokenizer: Source) -> str:
    """What a text is padded with; CLIPTokenizer's default is the end once more."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        pad = tokenizer.files.get(name, {}).get("pad_token")
        pad = pad.get("content") if isinstance(pad, Mapping) else pad
        if pad is not None:
            if pad not in ("!", _clip_tokenizer.END):
                raise UserError(
                    f"{tokenizer.place}: texts are padded with {pad!r}: only '!' and "
                    f"{_clip_tokenizer.END!r} fit"
                )
            return pad
    return _clip_tokenizer.END


def assembled(
    net: Mapping[str, Any],
    stage1: Mapping[str, Any],
    tower: Mapping[str, Any],
    *,
    side: int,
    **more: Any,
) -> dict[str, Any]:
    """`config.task` of the parts.

    Args:
      side: of a latent.
      more: the keys of the scheduler's, and end_padding.
    """
    factor = 2 ** (len(stage1["net"]["mult"]) - 1)
    return {
        "name": TASK,
        "net": net,
        "stage1": {**stage1, "image_size": side * factor},
        "image_size": 0,
        "tower": tower,
        "read_padding": True,
        **more,
    }


def matched(arrays: formats.Arrays, task: Mapping[str, Any], place: str) -> None:
    """UserError where the widths of the parts differ."""
    rows, given, context = _unet.channels(arrays)
    latent, width = task["stage1"]["code_dim"], task["tower"]["width"]
    if (rows, given) != (latent, latent):
        raise UserError(
            f"{place}: the UNet takes {rows} channels and gives {given}, and the "
            f"autoencoder's latents have {latent}: only equal numbers fit (a UNet for "
            "masks has more)"
        )
    if context != width:
        raise UserError(
            f"{place}: the UNet reads texts of width {context}, and the text tower is "
            f"{width} wide: take the tower that it was trained with"
        )


def from_mmjax(model: formats.Model) -> formats.Export:
    task, kept = model.task, model.kept
    fits(task)
    net = Numbers(**{k: v for k, v in task["net"].items() if k != "kind"})
    tower = presets.text_tower(task["tower"])
    # With 1x1 convolutions, as the first version, where nothing else is known.
    kept_net = kept.get("unet", {})
    dense = kept_net.get("config", {}).get("use_linear_projection", False)
    arrays = {k: v for k, v in model.arrays.items() if k.startswith(_unet.NET)}
    rules = Table(*_unet.diffusers(len(net.mult), dense=dense))
    part = dataclasses.replace(model, arrays=arrays, kept=kept_net)
    tensors = {f"unet/{FILE}": formats.saved(rules, part)}
    stage1 = autoencoder_kl.build(task["stage1"], "config.task.stage1")
    sizes = {"channels": stage1.code_dim, "context": tower.width}
    own = _unet.config(net, side=stage1.grid, **sizes)
    texts = {
        "unet/config.json": {
            **kept_net.get("config", {}),
            **own,
            "use_linear_projection": dense,
        },
        "scheduler/scheduler_config.json": _scheduler.config(
            task, kept.get("scheduler", {})
        ),
        PIPELINE: _index(kept.get("index", {}), task),
    }
    texts = {name: json.dumps(value, indent=2) for name, value in texts.items()}
    vae = {
        path.removeprefix(STAGE1): value
        for path, value in model.arrays.items()
        if path.startswith(STAGE1)
    }
    exports = {
        "vae": diffusers_kl.from_mmjax(
            formats.Model(
                {"autoencoder": task["stage1"]},
                model.image,
                None,
                vae,
                kept.get("vae", {}),
            )
        ),
        "text_encoder": _clip_text.from_mmjax(
            _clip_text.of_model(model), tower, model.tokenizer.eot
        ),
    }
    for name, export in exports.items():
        tensors |= {f"{name}/{file}": value for file, value in export.tensors.items()}
        texts |= {f"{name}/{file}": value for file, value in export.texts.items()}
    words, notes = _clip_tokenizer.hugging_face_files(
        model.tokenizer, pad=_clip_tokenizer.END if task["end_padding"] else "!"
    )
    texts |= {f"tokenizer/{file}": value for file, value in words.items()}
    return formats.Export(tensors, texts, notes)


def _index(kept: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """model_index.json, less the parts that are not written."""
    scheduler = _scheduler.SAMPLERS.items()
    names = {ours: theirs for theirs, ours in scheduler}
    return {
        **kept,
        "_class_name": CLASS,
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", names.get(task["sampling"]["sampler"])],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", _unet.CLASS],
        "vae": ["diffusers", diffusers_kl.CLASS],
    }


def fits(task: Mapping[str, Any]) -> None:
    """UserError for parts that Stable Diffusion lacks."""
    if not task["stage1"] or not task["tower"]:
        missing = "tower" if task["stage1"] else "stage1"
        raise UserError(f"this model has no {missing}, Stable Diffusion has both")
    wanted = {
        "net.kind": (task["net"].get("kind"), "unet"),
        "tower.kind": (task["tower"].get("kind"), "transformer"),
        "tower.causal": (task["tower"].get("causal", True), True),
        "read_padding": (task["read_padding"], True),
        "pooled": (task["pooled"], False),
    }
    for key, (have, want) in wanted.items():
        if have != want:
            raise UserError(f"{key} is {have!r}: Stable Diffusion has {want!r} alone")
