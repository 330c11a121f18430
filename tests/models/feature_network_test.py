"""Features of a classifier's stages, and towers that have none."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import feature_network

CONV = {"kind": "conv", "width": 8, "depths": (2, 1)}
SIZES = {"classes": 5, "image_size": 16}


def test_the_last_block_of_every_stage():
    network = feature_network.build({**SIZES, "image": CONV, "mean": (0.2, 0.3, 0.4)})
    x = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(network.module.init)(jax.random.key(0), x)
    stages = jax.jit(network.stages)(variables, x)
    assert {k: v.shape for k, v in stages.items()} == {
        "stage_0": (2, 8, 8, 8),
        "stage_1": (2, 4, 4, 16),
    }
    seen = (x - np.float32([0.2, 0.3, 0.4])) / np.float32(0.25)
    _, state = network.module.apply(
        variables, seen, capture_intermediates=True, mutable=["intermediates"]
    )
    tower = state["intermediates"]["tower"]
    for stage, block in (("stage_0", 1), ("stage_1", 0)):
        want = tower[f"{stage}_block_{block}"]["__call__"][0]
        np.testing.assert_allclose(stages[stage], want, atol=1e-5)


def test_batch_norms_are_those_of_evaluation():
    """Features of an image do not depend on the others."""
    tower = {"kind": "resnet", "width": 8, "depths": (1,), "heads": 1}
    network = feature_network.build({**SIZES, "image_size": 32, "image": tower})
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.module.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: np.full(s.shape, 0.1, s.dtype), shapes)
    stages = jax.jit(network.stages)
    both, other = stages(variables, x), stages(variables, x * [[[[1.0]]], [[[0.5]]]])
    assert list(both) == ["stage_0"]
    np.testing.assert_allclose(both["stage_0"][0], other["stage_0"][0], atol=1e-5)
    assert np.abs(both["stage_0"][1] - other["stage_0"][1]).max() > 1e-3


def test_what_has_no_stages():
    with pytest.raises(UserError, match="image.kind is 'vit', which has no stages"):
        feature_network.build({**SIZES, "image": {"kind": "vit"}})
    with pytest.raises(UserError, match="kind is 'classifyer'.*'classifier'"):
        feature_network.build({"kind": "classifyer"})
    with pytest.raises(UserError, match="perceptual: .*clases"):
        feature_network.build({"clases": 5, "image_size": 16})
