"""EfficientNet-Lite's state dict in and out, and against the torch original."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from mmjax import tree
from mmjax.convert import formats, import_export, read
from mmjax.convert.formats import efficientnet_lite
from mmjax.errors import UserError
from mmjax.models import classifier


@pytest.fixture(scope="module")
def state():
    """A state dict of lite0 with 5 classes, small random numbers."""
    spec = {"kind": "efficientnet_lite"}
    model = classifier.build(spec, classes=5, image_size=64, linear=True)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = tree.flatten(jax.eval_shape(model.init, jax.random.key(0), x))
    rng = np.random.default_rng(0)

    def numbers(path, shape):
        fan = max(1, int(np.prod(shape[:-1]))) if len(shape) > 1 else 100
        value = rng.normal(size=shape, scale=(2 / fan) ** 0.5).astype(np.float32)
        return np.abs(value) + 0.5 if path.endswith(("var", "scale")) else value

    ours = {path: numbers(path, leaf.shape) for path, leaf in shapes.items()}
    return efficientnet_lite.TABLE.save(ours)


def source(tensors):
    return read.Source("x.pth", tensors, {}, None)


def test_in_and_out(state):
    counters = {"_bn0.num_batches_tracked": np.asarray(7)}
    given = {k: np.ascontiguousarray(v) for k, v in state.items()} | counters
    assert formats.detect(source(given)) == "efficientnet_lite"
    model = efficientnet_lite.to_mmjax(source(given))
    assert model.task["classes"] == 5 and model.task["image_size"] == 224
    assert model.arrays["params/tower/block_1/depthwise/kernel"].shape == (3, 3, 1, 96)
    [back] = efficientnet_lite.from_mmjax(model).tensors.values()
    assert back.keys() == given.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(back[key], value)


def test_refusals(state):
    short = {k: v for k, v in state.items() if not k.startswith("_blocks.15.")}
    with pytest.raises(UserError, match="15 blocks with .* are none of lite0, lite1"):
        efficientnet_lite.to_mmjax(source(short))
    other = formats.Model({"image": {"kind": "conv"}, "linear": False}, {}, None, {})
    with pytest.raises(UserError, match="'conv' with linear=False"):
        efficientnet_lite.from_mmjax(other)


@pytest.mark.parity
def test_outputs_are_the_originals(state, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    tensors = {k: np.ascontiguousarray(v) for k, v in state.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "lite0.safetensors")
    place = str(tmp_path / "lite0.safetensors")
    done = import_export.bring_in(place, tmp_path / "run")
    for _, relative in import_export.check(done).values():
        assert relative < 1e-4
