"""The classifier's parts: even odds at first, features before the head, errors."""

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
def test_logits_are_the_head_of_the_features(image):
    model = classifier.build(image, classes=5, image_size=32)
    x = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    assert not np.asarray(jax.jit(model.apply)(variables, x)).any()  # even odds
    kernel = jax.random.normal(
        jax.random.key(2), variables["params"]["head"]["kernel"].shape
    )
    params = {
        **variables["params"],
        "head": {"kernel": kernel, "bias": jnp.arange(5.0)},
    }
    variables = {**variables, "params": params}
    features, logits = jax.jit(
        lambda v: (model.apply(v, x, method="features"), model.apply(v, x))
    )(variables)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    wanted = np.asarray(features) @ np.asarray(kernel) + np.arange(5.0)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    assert np.ptp(features, axis=0).max() > 1e-4  # it looks at the picture


def test_refuses_unknown_keys_and_other_sizes():
    with pytest.raises(UserError, match="did you mean 'width'"):
        classifier.build({**CONV, "widht": 8}, classes=2, image_size=32)
    with pytest.raises(UserError, match="needs a kind"):
        classifier.build({}, classes=2, image_size=32)
    model = classifier.build(CONV, classes=2, image_size=32)
    with pytest.raises(UserError, match=r"takes \(b, 32, 32, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((2, 16, 16, 3)))
