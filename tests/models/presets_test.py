"""Named sizes hold the parameters they should; bad names and numbers say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.text import CBOW

# Counted on open_clip's torch models of the same names.
COUNTS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336": 427_944_193,
}
SMALL = {
    "image": {"kind": "conv", "width": 8, "depths": (1, 1)},
    "text": {"kind": "cbow", "width": 8},
    "embed_dim": 6,
    "vocab_size": 20,
    "context": 5,
    "image_size": 16,
}


def batch(model, rows=2):
    size = model.image.image_size
    tokens = np.zeros((rows, 5), np.int32)
    tokens[:, :3] = [1, 7, 19]
    return jnp.ones((rows, size, size, 3)), tokens, tokens > 0


def abstract(model):
    return jax.eval_shape(model.init, jax.random.key(0), *batch(model))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    params = abstract(presets.build(name, scan=True))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == COUNTS[name]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if "@" in name])
def test_small_presets_have_consistent_shapes(name):
    model = presets.build(name)
    out = jax.eval_shape(model.apply, abstract(model), *batch(model))
    dim = presets.preset(name).embed_dim
    assert out.image.shape == out.text.shape == (2, dim)


def test_arguments_override_the_preset_and_reach_the_towers():
    model = presets.build(
        "RN50",
        image="ViT-B/16",
        text={"kind": "cbow", "width": 32},
        embed_dim=64,
        image_size=64,
        vocab_size=100,
        act="quick_gelu",
        scan=True,
        remat="dots",
        dtype="bfloat16",
    )
    assert (model.image.patch, model.image.width, model.image.image_size) == (
        16,
        768,
        64,
    )
    assert (model.image.act, model.image.scan) == ("quick_gelu", True)
    assert (model.image.remat, model.image.dtype) == ("dots", "bfloat16")
    assert model.text == CBOW(32, 100)
    assert model.embed_dim == 64
    own = presets.build("ViT-B/32", image={"kind": "vit", "act": "relu"}, act="gelu")
    assert (own.image.act, own.text.act) == ("relu", "gelu")


def test_lists_from_json_are_accepted():
    listed = SMALL | {"image": {"kind": "conv", "width": 8, "depths": [1, 1]}}
    assert presets.build(**listed) == presets.build(**SMALL)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "ViT-B32"}, TypeError, "did you mean 'ViT-B/32'"),
        ({"image": {"kind": "vit", "widht": 3}}, TypeError, "did you mean 'width'"),
        ({"image": {"kind": "vti"}}, TypeError, "did you mean 'vit'"),
        ({"text": {"kind": "cbow", "depth": 3}}, TypeError, "'cbow' has no 'depth'"),
        ({"text": {"width": 3}}, UserError, "needs a kind: one of cbow, transformer"),
        ({"embed_dim": 0, "text": None}, UserError, "needs embed_dim, text"),
        ({"embed_dims": 3}, TypeError, "embed_dims"),
    ],
)
def test_bad_keys_name_the_nearest(change, error, message):
    with pytest.raises(error, match=message):
        presets.build(**SMALL | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18, "image": {"kind": "vit", "patch": 4}}, "use 16"),
        ({"image_size": 40, "image": {"kind": "resnet"}}, "multiple of 32.*use 32"),
        ({"image_size": 18}, "multiple of 4: use 16"),
        ({"image": {"kind": "conv", "width": 12}}, "12 must split over 8.*use 8"),
        ({"act": "quickgelu"}, "did you mean 'quick_gelu'"),
        ({"remat": "some"}, r"legal: dots, dots_no_batch, full, none\)"),
    ],
)
def test_bad_numbers_name_the_fix(change, message):
    with pytest.raises(UserError, match=message):
        abstract(presets.build(**SMALL | change))
