"""The weight between a reconstruction and a discriminator: VQGAN's equation 7."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import adversarial


def test_a_quotient_of_lengths_that_ends_at_the_clip():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 3, 4, 5))
    want = np.sqrt((a**2).sum()) / (np.sqrt((b**2).sum()) + 1e-4)
    got = adversarial.adaptive_weight(jnp.asarray(a), jnp.asarray(b))
    assert got == pytest.approx(want, rel=1e-5)
    assert adversarial.adaptive_weight(a * 1e9, b) == 1e4
    assert adversarial.adaptive_weight(jnp.ones(4), jnp.zeros(4)) == 1e4
    assert adversarial.adaptive_weight(jnp.full(4, 1e-4), jnp.zeros(4)) == 2.0
