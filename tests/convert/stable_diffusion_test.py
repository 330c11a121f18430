"""Stable Diffusion's formats, without its libraries: round trips, and what misfits."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from mmjax import tree
from mmjax.convert import formats, import_export, read
from mmjax.convert.formats import _clip_text, _clip_tokenizer
from mmjax.errors import UserError
from mmjax.inference import generate, load
from mmjax.tasks import base

MERGES = (("h", "e</w>"), ("t", "he</w>"), ("d", "o"), ("do", "g</w>"))
VOCAB = 512 + len(MERGES) + 2
NET = {"kind": "unet", "width": 8, "mult": (1, 2), "depth": 1, "groups": 4}
NET |= {"attention": (0,), "heads": 2}
VAE = {"width": 8, "mult": (1, 2), "depth": 1, "hidden": 4, "groups": 4}
TOWER = {"kind": "transformer", "width": 16, "depth": 2, "heads": 2}
TOWER |= {"vocab_size": VOCAB, "context": 12, "act": "quick_gelu"}
SCHEDULE = {"kind": "scaled_linear", "start": 0.00085, "end": 0.012}
SAMPLING = {"sampler": "ddim", "spacing": "leading", "offset": 1, "clean": False}
ONE = {
    "name": "diffusion",
    "net": NET,
    "stage1": {"image_size": 16, "net": VAE | {"attention": ()}, "scale": 0.18215},
    "tower": TOWER,
    "read_padding": True,
    "end_padding": True,
    "schedule": SCHEDULE,
    "sampling": SAMPLING,
}
TWO = ONE | {
    "net": NET | {"heads": 8, "head_width": 4, "attention": (0, 1)},
    "tower": TOWER | {"act": "gelu"},
    "prediction": "v",
    "end_padding": False,
}
# a single file of Stable Diffusion has norms of 32 groups, in it said nowhere
WIDE = NET | {"width": 32, "groups": 32, "heads": 8}
FILE = ONE | {
    "net": WIDE,
    "stage1": ONE["stage1"]
    | {"image_size": 512, "net": VAE | {"attention": (), "width": 32, "groups": 32}},
    "tower": TOWER | {"width": 64, "heads": 1},
    "sampling": SAMPLING | {"sampler": "plms", "steps": 50, "guidance": 7.5},
}


def filled(task):
    """Random arrays of a task, as a format is given them."""
    built = base.build(task)
    batch = {"tokens": np.zeros((1, 12), np.int32)}
    batch["tokens_mask"] = np.ones((1, 12), bool)
    variables = jax.eval_shape(built.init, jax.random.key(0), batch)
    shapes = tree.flatten({"params": variables.params, "frozen": variables.frozen})
    rng = np.random.default_rng(0)
    arrays = {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in shapes.items()
    }
    image = {"size": 512, "mode": "crop", "method": "bilinear"}
    words = _clip_tokenizer.from_merges(MERGES, 12)
    return formats.Model(dataclasses.asdict(built), image, words, arrays)


def write(export, folder):
    for name, tensors in export.tensors.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(dict(tensors), folder / name)
    for name, text in export.texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def same_arrays(one, two):
    assert one.keys() == two.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(two[path], value, path)


@pytest.fixture(scope="module", params=["1", "2"])
def folder(request, tmp_path_factory):
    """(a pipeline's folder, the model it was written from)."""
    model = filled({"1": ONE, "2": TWO}[request.param])
    export = formats.find("diffusers_sd").from_mmjax(model)
    return write(export, tmp_path_factory.mktemp("pipeline")), model


def test_a_pipeline_comes_back(folder):
    place, model = folder
    source = read.read(place)
    assert formats.detect(source) == "diffusers_sd"
    family = formats.find("diffusers_sd")
    back = family.to_mmjax(source)
    same_arrays(model.arrays, back.arrays)
    built = base.build(dict(back.task))
    was = base.build(model.task | {"name": "diffusion"})
    assert built.model == was.model and built.autoencoder == was.autoencoder
    assert (built.prediction, built.schedule) == (was.prediction, was.schedule)
    for key in SAMPLING:
        assert getattr(built.sampling, key) == SAMPLING[key], key
    assert back.tokenizer.merges == MERGES
    again = family.from_mmjax(filled(back.task))
    first = family.from_mmjax(model)
    assert again.tensors.keys() == first.tensors.keys()
    for file, tensors in first.tensors.items():
        assert again.tensors[file].keys() == tensors.keys(), file
    for file, text in first.texts.items():
        assert (
            json.loads(text) == json.loads(again.texts[file])
            if (file.endswith("json") and "scheduler" not in file)
            else True
        ), file


def test_what_a_folder_says_is_written_again(folder):
    """Linear maps, the dtype, keys of no effect and a tokenizer's padding."""
    place, _ = folder
    source = read.read(place)
    tensors = {
        key: np.squeeze(value, (2, 3)) if ".proj_" in key and value.ndim == 4 else value
        for key, value in source.tensors.items()
    }
    tensors = {
        key: value.astype(np.float16) if key.startswith("unet/") else value
        for key, value in tensors.items()
    }
    files = dict(source.files)
    files["unet/config.json"] = files["unet/config.json"] | {"upcast_attention": True}
    files["unet/config.json"] |= {"use_linear_projection": True}
    changed = dataclasses.replace(source, tensors=tensors, files=files)
    family = formats.find("diffusers_sd")
    model = family.to_mmjax(changed)
    model = dataclasses.replace(
        model, task=dataclasses.asdict(base.build(dict(model.task)))
    )
    export = family.from_mmjax(model)
    for name, own in export.tensors.items():
        part = name.partition("/")[0]
        for key, value in own.items():
            assert value.dtype == tensors[f"{part}/{key}"].dtype
            np.testing.assert_array_equal(value, tensors[f"{part}/{key}"])
    for name in ("unet/config.json", "tokenizer/tokenizer_config.json"):
        assert json.loads(export.texts[name]) == files[name]


def test_a_single_file_comes_back(tmp_path):
    model, family = filled(FILE), formats.find("compvis_sd")
    write(family.from_mmjax(model), tmp_path)
    words = _clip_tokenizer.bpe_file(model.tokenizer)
    for name, raw in words.items():
        (tmp_path / name).write_bytes(raw)
    source = read.read(tmp_path / "model.safetensors")
    assert "model.diffusion_model.input_blocks.2.0.op.weight" in source.tensors
    assert "model.diffusion_model.output_blocks.1.1.conv.weight" in source.tensors
    assert formats.detect(source) == "compvis_sd"
    back = family.to_mmjax(source)
    same_arrays(model.arrays, back.arrays)
    built, was = base.build(dict(back.task)), base.build(FILE)
    assert built.model == was.model and built.autoencoder == was.autoencoder
    assert (built.schedule, built.sampling) == (was.schedule, was.sampling)


def test_the_second_version_leaves_out_the_last_block(tmp_path):
    """Its tower has the names of open_clip, and buffers and averages are left aside."""
    family, model = formats.find("compvis_sd"), filled(FILE)
    write(family.from_mmjax(model), tmp_path)
    (tmp_path / _clip_tokenizer.OWN).write_bytes(
        _clip_tokenizer.bpe_file(model.tokenizer)[_clip_tokenizer.OWN]
    )
    source = read.read(tmp_path / "model.safetensors")
    tensors = {
        key: value
        for key, value in source.tensors.items()
        if not key.startswith("cond_stage_model")
    }
    text = _clip_text.of_model(model).arrays
    own = _clip_text.OPEN_CLIP_TABLE.save(text)
    last = {
        key.replace("resblocks.1.", "resblocks.2."): value + 1
        for key, value in own.items()
        if "resblocks.1." in key
    }
    own |= last | {"text_projection": np.eye(16, dtype=np.float32)}
    tensors |= {f"cond_stage_model.model.{key}": value for key, value in own.items()}
    tensors |= {"betas": np.ones(4), "model_ema.decay": np.ones((), np.float32)}
    back = family.to_mmjax(dataclasses.replace(source, tensors=tensors))
    same_arrays(model.arrays, back.arrays)
    task = base.build(dict(back.task))
    assert task.prediction == "v" and not task.end_padding
    assert task.autoencoder.image_size == 768 and task.tower["act"] == "gelu"
    with pytest.raises(UserError, match="no part of Stable Diffusion for control"):
        tensors["control.weight"] = np.ones(3, np.float32)
        family.to_mmjax(dataclasses.replace(source, tensors=tensors))


def test_convert_makes_a_run_that_draws(tmp_path):
    model = filled(ONE)
    export = formats.find("diffusers_sd").from_mmjax(model)
    place = write(export, tmp_path / "pipeline")
    done = import_export.bring_in(
        str(place), tmp_path / "run", overrides=["--config.task.sampling.steps=2"]
    )
    assert done.family == "diffusers_sd"
    run = load.load_run(tmp_path / "run")
    drawn = generate.Generator(run, batch=2).sample(["the dog"], k=2)
    assert drawn.images.shape == (1, 2, 16, 16, 3)
    out = import_export.write_out(tmp_path / "run", tmp_path / "out")
    assert out.family == "diffusers_sd"
    same_arrays(read.read(place).tensors, read.read(tmp_path / "out").tensors)


def changed(place, tmp_path, file, **more):
    """The folder with keys of a JSON file changed."""
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return read.read(copy)


@pytest.mark.parametrize(
    ("file", "more", "words"),
    [
        (
            "model_index.json",
            {"_class_name": "StableDiffusionXLPipeline"},
            "is of a StableDiffusionXLPipeline: only StableDiffusionPipeline",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "UniPCMultistepScheduler"},
            "for a UniPCMultistepScheduler, which ours have not.*DDIMScheduler",
        ),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "sigmoid"},
            "beta_schedule is 'sigmoid': only linear, scaled_linear",
        ),
        (
            "scheduler/scheduler_config.json",
            {"clip_sample": True},
            "clip_sample is true",
        ),
        (
            "scheduler/scheduler_config.json",
            {"trained_betas": [0.1]},
            "trained_betas",
        ),
        (
            "unet/config.json",
            {"class_embed_type": "timestep"},
            "class_embed_type is 'timestep': only None fits",
        ),
        (
            "unet/config.json",
            {"attention_head_dim": [2, 3]},
            r"\[2, 3\] heads of levels of widths \[8, 16\]",
        ),
        ("unet/config.json", {"sample_size": None}, "sample_size is None"),
        (
            "text_encoder/config.json",
            {"model_type": "t5"},
            "is a 't5': only CLIP's text tower",
        ),
        (
            "tokenizer/tokenizer_config.json",
            {"pad_token": "[PAD]"},
            "padded with '\\[PAD\\]'",
        ),
    ],
)
def test_what_does_not_fit_is_named(file, more, words, folder, tmp_path):
    source = changed(folder[0], tmp_path, file, **more)
    with pytest.raises(UserError, match=words):
        formats.find("diffusers_sd").to_mmjax(source)


def test_parts_of_other_widths_are_named(tmp_path):
    family = formats.find("diffusers_sd")
    wide = filled(ONE | {"tower": TOWER | {"width": 32}})
    one = read.read(write(family.from_mmjax(filled(ONE)), tmp_path / "one"))
    other = read.read(write(family.from_mmjax(wide), tmp_path / "wide"))
    tensors, files = (
        {key: (theirs if key.startswith("text_encoder/") else own)[key] for key in own}
        for own, theirs in ((one.tensors, other.tensors), (one.files, other.files))
    )
    mixed = dataclasses.replace(one, tensors=tensors, files=files)
    with pytest.raises(UserError, match="texts of width 16, and the text tower is 32"):
        family.to_mmjax(mixed)


def test_a_part_that_is_missing_is_named(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder[0], copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(UserError, match="holds no vae: fetch the whole folder"):
        formats.find("diffusers_sd").to_mmjax(read.read(copy))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"net": {"kind": "dit", "patch": 2}}, "net.kind is 'dit'"),
        ({"read_padding": False}, "read_padding is False"),
        (
            {"schedule": {"kind": "flow"}, "prediction": "flow"},
            "schedule.kind is 'flow'",
        ),
    ],
)
def test_models_that_cannot_be_written_are_named(more, words):
    model = filled(ONE)
    task = dataclasses.asdict(base.build(ONE | more))
    model = dataclasses.replace(model, task=task)
    with pytest.raises(UserError, match=words):
        formats.find("diffusers_sd").from_mmjax(model)
