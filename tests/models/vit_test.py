"""Patches and pooling of the vision transformer."""

import math

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.vit import ViT


def test_patch_order_and_pooled_token():
    module = ViT(width=64, depth=2, patch=4, image_size=8)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    bound = module.bind(variables)
    kernel = np.asarray(variables["params"]["patches"]["kernel"])
    # Patch 1 is to the right of patch 0; its pixels run row by row.
    want = x[0, :4, 4:].reshape(-1) @ kernel
    got = bound.patches(jax.numpy.asarray(x[0, :4, 4:].reshape(1, -1)))[0]
    np.testing.assert_allclose(got, want, atol=1e-5)
    tokens = jax.jit(module.apply, static_argnames="method")(
        variables, x, method="sequence"
    )
    assert tokens.shape == (2, 5, 64)
    np.testing.assert_allclose(
        jax.jit(module.apply)(variables, x), tokens[:, 0], atol=1e-5
    )


def softmax(x):
    odds = np.exp(x - x.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def test_map_head_by_hand():
    """SigLIP's: patches of 4 in 10 px are 2 a side, the pixels left over unseen."""
    module = ViT(width=8, depth=1, heads=2, patch=4, image_size=10, pool="map")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 10, 10, 3)).astype(np.float32)
    fresh = module.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape, scale=0.5), fresh)
    params = variables["params"]
    assert "class_token" not in params and params["position_embedding"].shape == (4, 8)
    tokens = np.asarray(module.apply(variables, x, method="sequence"))
    assert tokens.shape == (2, 4, 8)
    head = params["head"]

    def dense(y, layer):
        return y @ layer["kernel"] + layer["bias"]

    q = head["probe"] @ head["qkv"]["kernel"][:, :8] + head["qkv"]["bias"][:8]
    k, v = np.split(dense(tokens, head["qkv"])[..., 8:], 2, -1)
    mixed = [
        softmax(k[..., part] @ q[part] / 2)[:, None] @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    y = dense(np.concatenate(mixed, -1)[:, 0], head["out"])
    z = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + module.eps)
    z = dense(z * head["norm"]["scale"] + head["norm"]["bias"], head["mlp"]["fc"])
    erf = np.vectorize(math.erf)
    want = y + dense(z * (1 + erf(z / 2**0.5)) / 2, head["mlp"]["proj"])
    np.testing.assert_allclose(module.apply(variables, x), want, rtol=1e-4, atol=1e-4)
    x[:, 8:], x[:, :, 8:] = 9, 9
    np.testing.assert_allclose(module.apply(variables, x), want, rtol=1e-4, atol=1e-4)


def test_pools_that_do_not_exist():
    x = np.zeros((1, 8, 8, 3), np.float32)
    with pytest.raises(UserError, match="token or map"):
        ViT(width=8, depth=1, patch=4, image_size=8, pool="mean").init(
            jax.random.key(0), x
        )
