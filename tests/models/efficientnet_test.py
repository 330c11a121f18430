"""EfficientNet-Lite: blocks, padding, depthwise convolution, frozen statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import efficientnet, presets
from mmjax.nn.conv import DepthwiseConv

STAGES = ((1, 3, 1, 1, 16), (2, 5, 2, 2, 24), (1, 3, 2, 2, 32))


def test_sizes_are_those_of_the_released_networks():
    counts = {
        name: len(efficientnet.blocks(width, depth))
        for name, (width, depth, _) in efficientnet.SIZES.items()
    }
    # TensorFlow's efficientnet_lite_builder, counted by hand
    assert counts == {"lite0": 16, "lite1": 21, "lite2": 21, "lite3": 24, "lite4": 30}
    assert efficientnet.blocks(1.0, 1.0)[-1] == (3, 1, 6, 320)
    assert efficientnet.blocks(1.4, 1.8)[0] == (3, 1, 1, 24)  # 22.4, rounded up


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(7, 3, 2), (8, 5, 2), (6, 5, 1)]
)
def test_depthwise_is_the_grouped_convolution(side, kernel, stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, side, side, 3)), jnp.float32)
    module = DepthwiseConv(kernel, stride)
    weights = jnp.asarray(rng.normal(size=(kernel, kernel, 1, 3)), jnp.float32)
    got = module.apply({"params": {"kernel": weights}}, x)
    want = jax.lax.conv_general_dilated(
        x,
        weights,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_tower_is_the_mean_of_its_map_and_keeps_its_statistics():
    spec = {"kind": "efficientnet_lite", "head": 40, "stages": STAGES}
    tower = presets.image_tower(spec, image_size=32)
    x = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    variables = jax.jit(tower.init)(jax.random.key(1), x)

    @jax.jit
    def run(x):
        (pooled, grid), state = tower.apply(
            variables, x, train=True, with_map=True, mutable=["batch_stats"]
        )
        return pooled, grid, state["batch_stats"]

    pooled, grid, stats = run(x)
    assert pooled.shape == (3, 40) and grid.shape == (3, 4, 4, 40)
    np.testing.assert_allclose(pooled, grid.mean((1, 2)), atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    np.testing.assert_allclose(run(x.at[1:].set(0.0))[0][0], pooled[0], atol=1e-6)
