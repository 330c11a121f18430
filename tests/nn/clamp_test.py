"""A clamped parameter finds its way back."""

import jax
import pytest

from mmjax.nn.clamp import clamp


@pytest.mark.parametrize(
    ("x", "slope", "value", "grad"),
    [
        (0.5, 2.0, 0.5, 2.0),  # inside: the identity
        (1.5, -1.0, 1.0, 0.0),  # above, and descent would climb further: stopped
        (1.5, 1.0, 1.0, 1.0),  # above, and descent leads back: passed
        (-0.5, 1.0, 0.0, 0.0),
        (-0.5, -1.0, 0.0, -1.0),
    ],
)
def test_gradients_lead_inside(x, slope, value, grad):
    got, got_grad = jax.value_and_grad(lambda x: slope * clamp(x, 0.0, 1.0))(x)
    assert got == slope * value
    assert got_grad == grad
