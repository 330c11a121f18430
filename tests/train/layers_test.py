"""Layer-wise decay: rates by the numbers in paths."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.train import layers, optim


def test_rates_fall_from_the_top_of_each_tower_on_its_own():
    params = {
        "image": {
            "patches": {"kernel": jnp.ones((2, 2))},
            "position_embedding": jnp.ones((2, 2)),
            "transformer": {
                "blocks": {"norm_1": {"scale": jnp.ones((2, 3))}},
                "block_2": {"norm_1": {"scale": jnp.ones(3)}},
            },
            "norm_post": {"scale": jnp.ones(3)},
        },
        "text": {
            "down_0": {"bias": jnp.ones(3)},
            "stage_0_block_0": {"conv_0": {"kernel": jnp.ones((2, 2))}},
            "stage_0_block_10": {"conv_0": {"kernel": jnp.ones((2, 2))}},
            "down_1": {"bias": jnp.ones(3)},
        },
        "logit_scale": jnp.ones(()),
    }
    found = layers.factors(params, 0.5, "config.optim")
    stacked = found.pop("image/transformer/blocks/norm_1/scale")
    np.testing.assert_allclose(stacked, [[0.125], [0.25]])
    assert found == {
        "image/patches/kernel": 0.0625,
        "image/position_embedding": 0.0625,
        "image/transformer/block_2/norm_1/scale": 0.5,
        "image/norm_post/scale": 1.0,
        "text/down_0/bias": 0.0625,
        "text/stage_0_block_0/conv_0/kernel": 0.125,
        "text/stage_0_block_10/conv_0/kernel": 0.25,
        "text/down_1/bias": 0.5,
        "logit_scale": 1.0,
    }
    rule = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "schedule": "constant"}
    cfg = optim.OptimConfig(**rule, warmup=0, layer_decay=0.5)
    tx, _, _ = optim.make(cfg, 10, params, couples_rows=False)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["text"]["down_1"]["bias"], -0.5)
    np.testing.assert_allclose(
        updates["image"]["transformer"]["blocks"]["norm_1"]["scale"],
        [[-0.125] * 3, [-0.25] * 3],
    )


def test_what_has_no_layers_is_refused():
    params = {"head": {"kernel": jnp.ones((2, 2))}}
    cfg = optim.OptimConfig(layer_decay=0.9)
    with pytest.raises(UserError, match="no parameter lies in a numbered layer"):
        optim.make(cfg, 9999, params, couples_rows=False)
    with pytest.raises(ValueError, match="use more than 0, up to 1"):
        optim.OptimConfig(layer_decay=1.5)
    with pytest.raises(UserError, match="layer_decay is 0.9, but"):
        cfg = optim.OptimConfig(
            name="lbfgs", lr=1.0, schedule="constant", warmup=0, layer_decay=0.9
        )
        optim.make(cfg, 9, params, couples_rows=False)
