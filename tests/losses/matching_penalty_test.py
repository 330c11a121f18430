"""The matching-aware gradient penalty: closed forms, and reverse over reverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import adversarial

RNG = np.random.default_rng(0)
X, E = (RNG.normal(size=(5, *shape)).astype(np.float32) for shape in ((2, 2, 3), (4,)))
W, V = (RNG.normal(size=a.shape[1:]).astype(np.float32) for a in (X, E))


def linear(params, x, e):
    scores_b = jnp.einsum("bhwc,hwc->b", x, params[0]) + e @ params[1]
    return scores_b, {"of": x.sum()}


@pytest.mark.parametrize(("weight", "power"), [(2.0, 6.0), (0.5, 4.0), (1.0, 3.0)])
def test_a_linear_discriminator_has_one_gradient_everywhere(weight, power):
    """k |(w, v)|^p, whose gradient is k p |(w, v)|^(p - 2) (w, v)."""

    def penalty(params):
        return adversarial.matching_penalty(
            lambda x, e: linear(params, x, e), X, E, weight=weight, power=power
        )

    value, scores_b, more = penalty((W, V))
    norm = np.sqrt((W**2).sum() + (V**2).sum())
    np.testing.assert_allclose(value, weight * norm**power, rtol=1e-5)
    np.testing.assert_allclose(scores_b, linear((W, V), X, E)[0], rtol=1e-6)
    np.testing.assert_allclose(more["of"], X.sum(), rtol=1e-5)
    of_w, of_v = jax.grad(lambda params: penalty(params)[0])((W, V))
    factor = weight * power * norm ** (power - 2)
    np.testing.assert_allclose(of_w, factor * W, rtol=1e-4)
    np.testing.assert_allclose(of_v, factor * V, rtol=1e-4)


def test_gradients_are_those_of_reverse_over_reverse():
    """And a loss of the scores beside it has its own."""
    params = tuple(RNG.normal(size=(n, 7)).astype(np.float32) for n in (12, 4))

    def net(params, x, e):
        hidden = jnp.tanh(x.reshape(len(x), -1) @ params[0] + e @ params[1])
        return jnp.square(hidden).sum(-1), None

    def ours(params):
        value, scores_b, _ = adversarial.matching_penalty(
            lambda x, e: net(params, x, e), X, E
        )
        return value + adversarial.hinge_real(scores_b)

    def plain(params):
        def one(x, e):
            return net(params, x[None], e[None])[0][0]

        gx, ge = jax.vmap(jax.grad(one, (0, 1)))(X, E)
        norm_b = jnp.sqrt(jnp.square(gx).sum((1, 2, 3)) + jnp.square(ge).sum(1))
        scores_b = net(params, X, E)[0]
        return 2.0 * (norm_b**6).mean() + jnp.maximum(0.0, 1.0 - scores_b).mean()

    np.testing.assert_allclose(ours(params), plain(params), rtol=1e-5)
    got, want = jax.grad(ours)(params), jax.grad(plain)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), got, want)


def test_no_gradient_anywhere_is_no_nan():
    zeros = jnp.zeros_like(W), jnp.zeros_like(V)

    def penalty(params):
        return adversarial.matching_penalty(lambda x, e: linear(params, x, e), X, E)[0]

    value, grads = jax.value_and_grad(penalty)(zeros)
    assert value == 0 and not any(np.asarray(g).any() for g in grads)
