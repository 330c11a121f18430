"""Image tokenizers' formats: round trips to the last bit, and what does not fit."""

import json

import numpy as np
import pytest
import safetensors.numpy

from mmjax import cli, evaluators, tree
from mmjax.convert import formats, read
from mmjax.convert.formats import _vqgan
from mmjax.convert.name_table import UnknownLayout
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import evaluate, loop

NET = {"width": 32, "mult": (1, 2), "depth": 1, "hidden": 8}
VQ = {"kind": "vqvae", "image_size": 256, "vocab_size": 16, "code_dim": 6}
GUMBEL = {"kind": "gumbel_vq", "image_size": 256, "vocab_size": 16, "code_dim": 6}
DVAE = {"kind": "dvae", "image_size": 256, "vocab_size": 32, "hidden": 8}
KL = {"image_size": 64, "code_dim": 8, "scale": 0.3, "shift": 0.1}
NO_MEANS = {"kmeans": 0, "revive_below": 0.0}


def vq(**net):
    made = {"kind": "vqgan", **NET, **net}
    return {"name": "vqvae", **NO_MEANS, "tokenizer": {**VQ, "ema": False, "net": made}}


def kl(**net):
    return {"name": "autoencoder_kl", "autoencoder": {**KL, "net": {**NET, **net}}}


CASES = {
    "taming_vqgan": vq(attention=(1,)),
    "taming_gumbel": {
        "name": "gumbel_vq",
        "tokenizer": {
            **GUMBEL,
            "net": {"kind": "vqgan", **NET, "attention": (0, 1), "middle": True},
        },
    },
    "diffusers_vq": vq(attention=(1,), groups=16),
    "diffusers_kl": kl(attention=()),
    "openai_dvae": {
        "name": "dvae",
        "tokenizer": {**DVAE, "groups": 2, "blocks_per_group": 2, "init_width": 12},
    },
}


def write(export, folder):
    folder.mkdir()
    for name, tensors in export.tensors.items():
        safetensors.numpy.save_file(dict(tensors), folder / name)
    for name, text in export.texts.items():
        (folder / name).write_text(text)
    return read.read(folder)


def numbers(task):
    """What decides the networks, with the defaults filled in."""
    built = base.build(task)
    return repr(built.model)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_is_bit_equal(name, tmp_path, model_of):
    family, task = formats.find(name), CASES[name]
    model = model_of(task)
    source = write(family.from_mmjax(model), tmp_path / "out")
    assert formats.detect(source) == name
    assert not formats.table(name, source.tensors).unknown(source.tensors)
    back = family.to_mmjax(source)
    assert numbers(dict(back.task)) == numbers(task)
    carried = {k for k in model.arrays if k.startswith("params/")}
    assert {k for k in back.arrays if k.startswith("params/")} == carried
    for path in carried:
        np.testing.assert_array_equal(back.arrays[path], model.arrays[path], path)
    again = family.from_mmjax(back)
    for file, tensors in family.from_mmjax(model).tensors.items():
        assert again.tensors[file].keys() == tensors.keys()
        for key, value in tensors.items():
            np.testing.assert_array_equal(again.tensors[file][key], value, key)
    if "config.json" in again.texts:
        assert json.loads(again.texts["config.json"]) == source.files["config.json"]


def test_old_names_of_attentions_come_back(tmp_path, model_of):
    family, model = formats.find("diffusers_kl"), model_of(CASES["diffusers_kl"])
    export = family.from_mmjax(model)
    (file,) = export.tensors
    names = zip(_vqgan.DIFFUSERS[1:], _vqgan.DIFFUSERS_OLD[1:], strict=True)
    tensors = dict(export.tensors[file])
    for new, old in names:
        tensors = {k.replace(f".{new}.", f".{old}."): v for k, v in tensors.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in tensors
    source = write(formats.Export({file: tensors}, export.texts), tmp_path / "old")
    back = family.to_mmjax(source)
    for path, value in model.arrays.items():
        np.testing.assert_array_equal(back.arrays[path], value, path)
    assert family.from_mmjax(back).tensors[file].keys() == tensors.keys()


def test_training_parts_of_vqgan_are_left_out_and_others_are_not(tmp_path, model_of):
    family = formats.find("taming_vqgan")
    export = family.from_mmjax(model_of(CASES["taming_vqgan"]))
    tensors = dict(export.tensors["model.safetensors"])
    tensors["loss.discriminator.main.0.weight"] = np.zeros((2, 3), np.float32)
    source = write(formats.Export({"m.safetensors": tensors}), tmp_path / "a")
    assert formats.detect(source) == "taming_vqgan"
    family.to_mmjax(source)
    tensors["decoder.extra.weight"] = np.zeros(2, np.float32)
    source = write(formats.Export({"m.safetensors": tensors}), tmp_path / "b")
    with pytest.raises(UnknownLayout, match="no rule for decoder.extra.weight"):
        family.to_mmjax(source)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"act_fn": "relu"}, "act_fn is 'relu': only 'silu' fits"),
        ({"in_channels": 4}, "in_channels is 4: only 3 fits"),
        ({"use_quant_conv": False}, "both or neither fit"),
        ({"latents_mean": [0.1]}, "latents_mean"),
    ],
)
def test_configs_that_do_not_fit(change, words, tmp_path, model_of):
    family = formats.find("diffusers_kl")
    export = family.from_mmjax(model_of(CASES["diffusers_kl"]))
    config = {**json.loads(export.texts["config.json"]), **change}
    export = formats.Export(export.tensors, {"config.json": json.dumps(config)})
    source = write(export, tmp_path / "out")
    with pytest.raises(UserError, match=words):
        family.to_mmjax(source)


def test_models_that_a_format_has_no_place_for(model_of):
    conv = {"name": "vqvae", "tokenizer": {**VQ, "net": {"kind": "conv"}}}
    with pytest.raises(UserError, match="of kind 'conv': only 'vqgan' fits"):
        formats.find("taming_vqgan").from_mmjax(model_of(conv))
    with pytest.raises(UserError, match="16 groups in a norm: this format has 32"):
        formats.find("taming_vqgan").from_mmjax(model_of(vq(attention=(), groups=16)))
    averaged = vq(attention=())
    averaged["tokenizer"] = {**averaged["tokenizer"], "ema": True}
    with pytest.raises(UserError, match="moving averages"):
        formats.find("diffusers_vq").from_mmjax(model_of(averaged))


def test_a_prior_that_does_not_fit_says_why(tmp_path):
    config = {"model_type": "dallebart", "encoder_layers": 12, "decoder_layers": 12}
    tensors = {"model.encoder.layers.a": np.zeros(3, np.float32)}
    export = formats.Export(
        {"m.safetensors": tensors}, {"config.json": json.dumps(config)}
    )
    source = write(export, tmp_path / "b")
    assert formats.detect(source) == "dalle_mini"
    with pytest.raises(UserError, match="encoder of 12 layers .* cross-attention"):
        formats.find("dalle_mini").to_mmjax(source)


@pytest.mark.long
def test_a_converted_tokenizer_serves_data_priors_and_evaluations(tmp_path, model_of):
    """At the size that overrides ask for; its weights are those that priors hold."""
    export = formats.find("taming_vqgan").from_mmjax(model_of(CASES["taming_vqgan"]))
    write(export, tmp_path / "in")
    sizes = [
        "--config.task.tokenizer.image_size=16",
        "--config.data.fields.image.size=16",
    ]
    run, out = tmp_path / "run", tmp_path / "tokens"
    assert cli.main(["convert", str(tmp_path / "in"), str(run), *sizes]) == 0
    source = "shapes:val?size=16&count=16"
    assert cli.main(["data", "tokenize", str(run), source, "--out", str(out)]) == 0
    tokenizer = load.load_run(run)
    asked = {"type": "reconstruction", "source": source, "limit": 4}
    judge = evaluators.build("val", asked, evaluate.env(tokenizer.parts))
    values = judge.run(tokenizer.state.eval_vars()).values
    assert 1 <= values["codes"] <= VQ["vocab_size"] and values["mse"] > 0
    cfg = config_lib.load("configs/prior.py:tiny", [])
    cfg.task.stage1 = tokenizer.config.task.tokenizer
    cfg.graft = {"tokenizer": str(run)}
    # a cache of tokens is refused unless the prior holds the weights that made it
    cfg.data.train, cfg.steps, cfg.optim.warmup = f"tokens:{out}", 1, 0
    cfg.evals = {}
    loop.run(cfg, tmp_path / "prior")
    held = load.load_run(tmp_path / "prior").state.vars.frozen["tokenizer"]
    for path, value in tree.flatten(held["params"]).items():
        np.testing.assert_array_equal(value, tokenizer.params[path], path)
