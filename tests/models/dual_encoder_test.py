"""Joint projections, temperature, bias, batch statistics, initialisation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import presets

SIZES = {"embed_dim": 64, "vocab_size": 50, "context": 6, "image_size": 32}
VIT = {"kind": "vit", "width": 128, "depth": 2, "patch": 8}
RESNET = {"kind": "resnet", "width": 8, "depths": (1, 1, 1, 1)}
CONV = {"kind": "conv", "width": 8, "depths": (1, 1)}
CBOW = {"kind": "cbow", "width": 32}
TEXT = {"kind": "transformer", "width": 128, "depth": 2}


def batch(rows=4):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(rows, 32, 32, 3)).astype(np.float32)
    tokens = rng.integers(1, 48, (rows, 6)).astype(np.int32)
    tokens[:, 4], tokens[:, 5] = 49, 0
    return images, tokens, tokens > 0


def init(model):
    return jax.jit(model.init)(jax.random.key(0), *batch())


def randomized(model):
    """Random variables of the right shapes, without compiling the initialisation."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch())
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.1, 0.3, x.shape), jnp.float32), shapes
    )


def test_temperature_starts_at_the_papers_and_stops_at_100():
    model = presets.build(image=CONV, text=CBOW, **SIZES)
    variables = init(model)
    assert float(variables["params"]["logit_scale"]) == pytest.approx(
        math.log(1 / 0.07)
    )

    def scale(logit_scale):
        params = variables["params"] | {"logit_scale": jnp.float32(logit_scale)}
        return model.apply({"params": params}, method="temperature")[0]

    assert scale(math.log(1 / 0.07)) == pytest.approx(1 / 0.07)
    assert scale(9.0) == pytest.approx(100.0)
    assert scale(-1.0) == pytest.approx(1.0)


def test_siglip_adds_a_bias():
    plain = presets.build(image=CONV, text=CBOW, **SIZES)
    siglip = presets.build(
        image=CONV, text=CBOW, init_scale=math.log(10.0), init_bias=-10.0, **SIZES
    )
    assert "logit_bias" not in randomized(plain)["params"]
    variables = init(siglip)
    scale, bias = siglip.apply(variables, method="temperature")
    assert (float(scale), float(bias)) == (pytest.approx(10.0), -10.0)
    free = presets.build(image=CONV, text=CBOW, init_scale=5.0, max_scale=0, **SIZES)
    scale, _ = free.apply(init(free), method="temperature")
    assert float(scale) == pytest.approx(math.exp(5.0))


def test_without_a_projection_the_widths_are_the_same():
    image = {"kind": "vit", "width": 16, "depth": 1, "patch": 8, "pool": "map"}
    sizes = SIZES | {"embed_dim": 16}
    assert (
        "image_proj"
        not in init(presets.build(image=image, text=CBOW, **sizes))["params"]
    )
    with pytest.raises(UserError, match="embed_dim 17 and image width 16"):
        init(presets.build(image=image, text=CBOW, **sizes | {"embed_dim": 17}))


def test_projection_follows_the_features():
    model = presets.build(image=RESNET, text=CBOW, **SIZES)
    variables = randomized(model)
    images, tokens, mask = batch()
    apply = jax.jit(model.apply, static_argnames="method")
    out = apply(variables, images, tokens, mask)
    features = apply(variables, images, method="image_features")
    proj = variables["params"]["image_proj"]
    assert features.shape == (4, model.image.features) == (4, 256)
    np.testing.assert_allclose(
        out.image, features @ proj["kernel"] + proj["bias"], rtol=1e-4
    )
    text = apply(variables, tokens, mask, method="encode_text")
    np.testing.assert_allclose(out.text, text, rtol=1e-4)
    assert "bias" not in variables["params"]["text_proj"]


def test_batch_statistics_move_in_training_only():
    model = presets.build(image=RESNET, text=CBOW, **SIZES)
    variables = randomized(model)
    run = jax.jit(
        lambda train: model.apply(
            variables, *batch(), train=train, mutable=["batch_stats"]
        )[1]["batch_stats"],
        static_argnums=0,
    )
    same = jax.tree.map(jnp.array_equal, run(False), variables["batch_stats"])
    assert all(jax.tree.leaves(same))
    moved = jax.tree.map(jnp.array_equal, run(True), variables["batch_stats"])
    assert not any(jax.tree.leaves(moved))


def test_papers_initialisation():
    vit = init(presets.build(image=VIT, text=TEXT, **SIZES))["params"]
    resnet = init(presets.build(image=RESNET, text=TEXT, **SIZES))["params"]

    def std(x):
        return pytest.approx(float(np.std(x)), rel=0.12)

    assert std(vit["text"]["token_embedding"]) == 0.02
    assert std(vit["text"]["position_embedding"]) == 0.01
    assert std(vit["image"]["class_token"]) == 128**-0.5
    assert std(vit["image"]["position_embedding"]) == 128**-0.5
    assert std(vit["image_proj"]["kernel"]) == 128**-0.5
    assert std(vit["text_proj"]["kernel"]) == 128**-0.5
    assert std(resnet["image"]["pool"]["query"]["kernel"]) == 256**-0.5
    assert std(resnet["image"]["pool"]["key_value"]["kernel"]) == 256**-0.5
    assert std(resnet["image"]["pool"]["position_embedding"]) == 256**-0.5
    assert std(resnet["image_proj"]["kernel"]) == 256**-0.5
    block = resnet["image"]["stage_1_block_0"]
    assert not np.any(block["norm_expand"]["scale"])
    assert np.all(np.asarray(block["norm_conv"]["scale"]) == 1)
    fan_in = 9 * block["conv"]["kernel"].shape[2]
    assert np.abs(block["conv"]["kernel"]).max() == pytest.approx(
        fan_in**-0.5, rel=0.01
    )


def test_half_precision_keeps_parameters_and_outputs_float32():
    model = presets.build(image=RESNET, text=TEXT, dtype="bfloat16", **SIZES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch())
    out = jax.eval_shape(model.apply, shapes, *batch())
    assert {x.dtype for x in jax.tree.leaves((shapes, out))} == {jnp.dtype("float32")}


def test_images_of_another_size_are_refused():
    model = presets.build(image=CONV, text=CBOW, **SIZES)
    _, tokens, mask = batch()
    with pytest.raises(UserError, match=r"\(b, 32, 32, 3\).*\(2, 16, 16, 3\)"):
        model.init(jax.random.key(0), np.zeros((2, 16, 16, 3)), tokens, mask)
