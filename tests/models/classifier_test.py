"""The classifier: its logits are scaled cosines of its features; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import classifier

CONV = {"kind": "conv", "width": 8, "depths": (1, 1), "groups": 4}


@pytest.mark.parametrize(
    "image",
    [
        CONV,
        {"kind": "vit", "width": 16, "depth": 1, "patch": 8, "heads": 2},
        {"kind": "resnet", "width": 8, "depths": (1, 1), "heads": 4},
    ],
)
def test_logits_are_scaled_cosines_of_the_features(image):
    model = classifier.build(image, classes=5, image_size=32)
    x = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    params = variables["params"]
    assert np.exp(params["logit_scale"]) == pytest.approx(1 / 0.07)

    @jax.jit
    def both(log_scale):
        given = {**variables, "params": {**params, "logit_scale": log_scale}}
        return model.apply(given, x, method="features"), model.apply(given, x)

    kernel = np.asarray(params["head"]["kernel"], np.float64)
    for log_scale, scale in ((np.log(7.0), 7.0), (9.0, 100.0), (-1.0, 1.0)):
        features, logits = both(jnp.float32(log_scale))
        assert logits.shape == (3, 5) and logits.dtype == jnp.float32
        rows = np.asarray(features, np.float64)
        lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
        np.testing.assert_allclose(logits, scale * rows @ kernel / lengths, atol=1e-3)
    assert np.ptp(features, axis=0).max() > 1e-4  # it looks at the picture


def test_a_black_feature_vector_has_a_gradient():
    grads = jax.grad(lambda x: classifier._unit(x, 1).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(grads).all()


def test_refuses_unknown_keys_and_other_sizes():
    with pytest.raises(UserError, match="did you mean 'width'"):
        classifier.build({**CONV, "widht": 8}, classes=2, image_size=32)
    with pytest.raises(UserError, match="needs a kind"):
        classifier.build({}, classes=2, image_size=32)
    model = classifier.build(CONV, classes=2, image_size=32)
    with pytest.raises(UserError, match=r"takes \(b, 32, 32, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((2, 16, 16, 3)))
