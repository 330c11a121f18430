"""LPIPS' weights to a run, into a tokenizer's stage by graft, and out again."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy

from mmjax import tree
from mmjax.convert import import_export, read
from mmjax.convert.formats import lpips
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import init_from, setup

WIDTHS = (2, 3, 2, 4, 3)


def state_dict():
    """Random weights under the package's names, with what it saves twice."""
    rng, before, tensors = np.random.default_rng(0), 3, {}
    for k, (width, numbers) in enumerate(zip(WIDTHS, lpips.LAYERS, strict=True)):
        for number in numbers:
            shapes = {"weight": (width, before, 3, 3), "bias": (width,)}
            for leaf, shape in shapes.items():
                key = f"net.slice{k + 1}.{number}.{leaf}"
                tensors[key] = rng.normal(size=shape).astype(np.float32)
            before = width
        head = rng.uniform(size=(1, width, 1, 1)).astype(np.float32)
        tensors |= {f"lin{k}.model.1.weight": head, f"lins.{k}.model.1.weight": head}
    return tensors


@pytest.mark.long
def test_through_a_run_into_another(tmp_path):
    tensors, file = state_dict(), tmp_path / "lpips.safetensors"
    safetensors.numpy.save_file(tensors, file)
    done = import_export.bring_in(str(file), tmp_path / "run")
    assert done.family == "lpips"

    config = config_lib.load(
        "adversarial:tiny", [f"--config.graft.features={done.workdir}"]
    )
    config.task.perceptual = {"kind": "lpips", "image_size": 16, "widths": WIDTHS}
    parts = setup.build(config)
    fresh = parts.layout.init(parts.update.init, jax.random.key(0), parts.example())
    state = init_from.init_from(parts, fresh)
    got = tree.flatten(state.vars.frozen["features"]["params"])
    head = tensors["lin1.model.1.weight"].ravel()
    np.testing.assert_array_equal(got["stage_1"], head)
    kernel = tensors["net.slice4.19.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(got["stage_3_conv_1/kernel"], kernel)

    import_export.write_out(done.workdir, tmp_path / "out")
    again = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert again.keys() == {k for k in tensors if not k.startswith("lins.")}
    for key, value in again.items():
        np.testing.assert_array_equal(value, tensors[key], key)


def test_keys_have_a_place_each_way():
    tensors = state_dict()
    source = read.Source("here", tensors, {}, None)
    assert lpips.detect(source) and not lpips.TABLE.unknown(tensors)
    model = lpips.to_mmjax(source)
    assert model.task["perceptual"]["widths"] == WIDTHS
    again = lpips.from_mmjax(model)
    (written,) = again.tensors.values()
    assert "discriminator are left out" in again.notes[0]
    assert written.keys() == {k for k in tensors if not k.startswith("lins.")}
    for key, value in written.items():
        np.testing.assert_array_equal(value, tensors[key], key)
    other = dataclasses.replace(model, task={"perceptual": {"classes": 3}})
    with pytest.raises(UserError, match="of kind 'classifier': only 'lpips' fits"):
        lpips.from_mmjax(other)
