"""Patches and pooling of the vision transformer."""

import jax
import numpy as np

from mmjax.models.vit import ViT


def test_patch_order_and_pooled_token():
    module = ViT(width=64, depth=2, patch=4, image_size=8)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(
        module.init, compiler_options={"xla_backend_optimization_level": 0}
    )(jax.random.key(0), x)
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
