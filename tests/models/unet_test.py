"""The UNet against its definition in numpy; its numbers, gradients and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attend, conv, dense, filled, group_norm, silu
from scipy import special

from mmjax.errors import UserError
from mmjax.models import denoiser, unet
from mmjax.nn import timestep

GROUPS, HEADS = 4, 2
NET = {"width": 8, "mult": (1, 2), "depth": 1, "attention": (1,), "heads": HEADS}
NET |= {"groups": GROUPS}
ROWS, SIDE, LENGTH = 2, 6, 5


def block(x_hwc, time_e, p):
    y = conv(silu(group_norm(x_hwc, p["norm_1"], GROUPS, 1e-5)), p["conv_1"])
    y = y + dense(time_e, p["time"])
    y = conv(silu(group_norm(y, p["norm_2"], GROUPS, 1e-5)), p["conv_2"])
    return (dense(x_hwc, p["skip"]) if "skip" in p else x_hwc) + y


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p["scale"] + p["bias"]


def heads(q, k, v):
    """Every head on its share of the channels."""
    parts = (np.split(x, HEADS, axis=-1) for x in (q, k, v))
    return np.concatenate([attend(*one) for one in zip(*parts, strict=True)], -1)


def transformer(x_hwc, context_lc, p):
    h, w, c = x_hwc.shape
    y = dense(group_norm(x_hwc, p["norm"], GROUPS).reshape(-1, c), p["proj_in"])
    own = p["block_0"]
    qkv = dense(layer_norm(y, own["norm_1"]), own["attention"]["qkv"])
    y = y + dense(heads(*np.split(qkv, 3, axis=-1)), own["attention"]["out"])
    if context_lc is not None:
        cross = own["cross"]
        q = dense(layer_norm(y, own["norm_2"]), cross["q"])
        kv = np.split(dense(context_lc, cross["kv"]), 2, axis=-1)
        y = y + dense(heads(q, *kv), cross["out"])
    value, gate = np.split(dense(layer_norm(y, own["norm_3"]), own["fc"]), 2, axis=-1)
    gate = gate * (1 + special.erf(gate / np.sqrt(2))) / 2
    y = y + dense(value * gate, own["proj"])
    return x_hwc + dense(y, p["proj_out"]).reshape(h, w, c)


def reference(p, x_hwc, t, context_lc, vector_e):
    """One row through the two levels of NET."""
    angles = t * 10_000.0 ** (-np.arange(4) / 4)
    time = np.concatenate([np.cos(angles), np.sin(angles)])
    time = dense(silu(dense(time, p["time_1"])), p["time_2"])
    if vector_e is not None:
        time = time + dense(vector_e, p["vector"])
    time = silu(time)
    skips = [conv(x_hwc, p["conv_in"])]
    skips.append(block(skips[-1], time, p["down_0_block_0"]))
    skips.append(conv(skips[-1], p["down_1_conv"], stride=2))
    x = block(skips[-1], time, p["down_1_block_0"])
    skips.append(transformer(x, context_lc, p["down_1_attention_0"]))
    x = block(skips[-1], time, p["middle_block_0"])
    x = transformer(x, context_lc, p["middle_attention"])
    x = block(x, time, p["middle_block_1"])
    for level in (1, 0):
        for i in (0, 1):
            x = np.concatenate([x, skips.pop()], -1)
            x = block(x, time, p[f"up_{level}_block_{i}"])
            if level:
                x = transformer(x, context_lc, p[f"up_1_attention_{i}"])
        if level:
            x = conv(x.repeat(2, 0).repeat(2, 1), p["up_1_conv"])
    return conv(silu(group_norm(x, p["norm"], GROUPS, 1e-5)), p["conv_out"])


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return {
        "x_bhwc": rng.normal(size=(ROWS, SIDE, SIDE, 3)).astype(np.float32),
        "t_b": np.array([0.0, 712.5], np.float32),
        "context_blc": rng.normal(size=(ROWS, LENGTH, 7)).astype(np.float32),
        "mask_bl": np.ones((ROWS, LENGTH), bool),
        "vector_be": rng.normal(size=(ROWS, 6)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def model(inputs):
    module = unet.build(NET, channels=3)
    return module, filled(module, *inputs.values())


@pytest.fixture(scope="module")
def apply(model):
    return jax.jit(model[0].apply)


def close(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_the_network_is_its_definition(model, inputs, apply):
    p = jax.tree.map(np.float64, model[1]["params"])
    got = apply(model[1], **inputs)
    assert got.shape == inputs["x_bhwc"].shape and got.dtype == jnp.float32
    rows = zip(
        *(np.float64(inputs[key]) for key in inputs if key != "mask_bl"), strict=True
    )
    close(got, np.stack([reference(p, *row) for row in rows]))


def test_without_context_and_vector_they_are_left_out(inputs):
    module = unet.build(NET, channels=3)
    x, t = inputs["x_bhwc"], inputs["t_b"]
    variables = filled(module, x, t)
    p = jax.tree.map(np.float64, variables["params"])
    got = jax.jit(module.apply)(variables, x, t)
    want = [
        reference(p, *row, None, None) for row in zip(np.float64(x), t, strict=True)
    ]
    close(got, np.stack(want))


def test_the_mask_hides_context(model, inputs, apply):
    """What a masked token holds has no effect, in each row for itself."""
    mask_bl = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    got = apply(model[1], **inputs | {"mask_bl": mask_bl})
    changed = inputs["context_blc"].copy()
    changed[:, 3:] += 1.0
    other = apply(model[1], **inputs | {"context_blc": changed, "mask_bl": mask_bl})
    close(got[0], other[0])
    full = apply(model[1], **inputs)
    close(got[1], full[1])
    assert np.abs(got[0] - full[0]).max() > 0.01 * np.abs(full[0]).max()


def test_rematerialised_gradients_are_slopes(model, inputs, apply):
    """None is zero, and along a direction they are the difference of two losses."""
    module = unet.build(NET | {"remat": "full"}, channels=3)

    def loss(params, apply=module.apply):
        return jnp.square(apply({"params": params}, **inputs)).mean()

    params = model[1]["params"]
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads)), grads
    size = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grads)))
    step = 1e-3 * float(value) / size**2

    def moved(by):
        return jax.tree.map(lambda p, g: p + by * g, params, grads)

    far = loss(moved(step), apply) - loss(moved(-step), apply)
    np.testing.assert_allclose(far, 2 * step * size**2, rtol=0.02)


def test_a_fresh_network_predicts_zero_by_blocks_that_change_nothing(inputs):
    module = unet.build(NET | {"mult": (1,), "attention": ()}, channels=3)
    x, t = inputs["x_bhwc"], inputs["t_b"]
    predicted, variables = jax.jit(module.init_with_output)(jax.random.key(0), x, t)
    assert not np.any(predicted)
    middle = {"params": variables["params"]["middle_block_0"]}
    x_bhwc = np.random.default_rng(2).normal(size=(ROWS, 3, 3, 8)).astype(np.float32)
    block = unet.Block(8, GROUPS)
    same = block.apply(middle, x_bhwc, np.ones((ROWS, 32), np.float32))
    np.testing.assert_array_equal(same, x_bhwc)


def test_heads_of_one_width_grow_with_the_level():
    net = unet.Numbers(**NET | {"head_width": 4})
    assert [net.heads_at(level) for level in (0, 1)] == [2, 4]
    assert net.factor == 2


def test_stable_diffusion_has_its_number_of_parameters():
    """As released: 859,520,964 of 1.x and 865,910,724 of 2.x."""
    for fields, width, count in (
        ({}, 768, 859_520_964),
        ({"head_width": 64}, 1024, 865_910_724),
    ):
        module = unet.build(fields, channels=4)
        inputs = jnp.zeros((1, 8, 8, 4)), jnp.zeros(1), jnp.zeros((1, 77, width))
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_sinusoids_take_fractions():
    got = timestep.sinusoids(jnp.array([0.0, 2.5]), 4)
    want = [np.cos(2.5), np.cos(0.025), np.sin(2.5), np.sin(0.025)]
    np.testing.assert_allclose(got, [[1, 1, 0, 0], want], atol=1e-6)
    assert timestep.sinusoids(jnp.zeros(3), 5).shape == (3, 5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attention": (2,)}, "attention names level 2 of 2: use 0 to 1"),
        ({"groups": 3}, "width 8 x mult 1 = 8 must split over 3 groups"),
        ({"heads": 3}, "width 8 x mult 2 = 16 must split over 3 heads"),
        ({"head_width": 5}, "must split over 5 channels a head"),
        ({"attention": (0,), "mult": (2, 1), "heads": 16}, "= 8 must split over 16"),
        ({"depth": 0}, "depth is 0"),
        ({"mult": ()}, "mult is"),
        ({"widht": 8}, "did you mean 'width'"),
    ],
)
def test_bad_numbers_are_named(more, words):
    with pytest.raises(UserError, match=f"^config.task.net: .*{words}"):
        unet.build(NET | more, "config.task.net", channels=3)


def test_a_grid_that_the_levels_do_not_divide_is_named():
    words = "config.task.net.mult has 2 levels.* rows are 7 a side: .*multiple of 2"
    with pytest.raises(UserError, match=words):
        denoiser.build({"kind": "unet", **NET}, grid=7, channels=3)
