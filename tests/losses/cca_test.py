"""Deep CCA's losses against float64 closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import cca as losses
from mmjax.metrics import cca as closed

WIDTHS = {2: (5, 4), 3: (4, 3, 5)}


def rows(count, seed=0, n=40):
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 2))
    return [
        cause @ rng.normal(size=(2, d)) + rng.normal(size=(n, d)) for d in WIDTHS[count]
    ]


def numeric(function, views, step=1e-5):
    """The gradient at every entry of every view, by central differences."""
    grads = [np.zeros_like(x) for x in views]
    for x, grad in zip(views, grads, strict=True):
        for place in np.ndindex(x.shape):
            old = x[place]
            ends = []
            for x[place] in (old + step, old - step):
                ends.append(function(views))
            grad[place], x[place] = (ends[0] - ends[1]) / (2 * step), old
    return grads


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("k", [0, 2])
def test_value_and_gradient_are_those_of_the_closed_form(count, k):
    views = rows(count)

    def want(views):
        return closed.fit(views, k or None, reg=0.01).correlations.sum()

    value, grads = jax.value_and_grad(
        lambda views: losses.total_correlation(views, k=k, reg=0.01)
    )([jnp.asarray(x, jnp.float32) for x in views])
    np.testing.assert_allclose(value, want(views), atol=1e-5)
    for got, right in zip(grads, numeric(want, views), strict=True):
        np.testing.assert_allclose(got, right, atol=2e-5)


def test_gradient_is_andrews_equations_11_to_13():
    a, b = rows(2)
    n, r = len(a), 0.01
    ac, bc = a - a.mean(0), b - b.mean(0)

    def inverse_root(c):
        values, vectors = np.linalg.eigh(c)
        return (vectors / np.sqrt(values)) @ vectors.T

    ra = inverse_root(ac.T @ ac / (n - 1) + r * np.eye(5))
    rb = inverse_root(bc.T @ bc / (n - 1) + r * np.eye(4))
    u, d, vt = np.linalg.svd(ra @ (ac.T @ bc / (n - 1)) @ rb, full_matrices=False)
    cross, own = ra @ u @ vt @ rb, -0.5 * ra @ (u * d) @ u.T @ ra
    want = (2 * ac @ own + bc @ cross.T) / (n - 1)
    got = jax.grad(lambda a: losses.total_correlation((a, b), reg=r))(jnp.asarray(a))
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_identical_views_are_the_width_with_a_finite_gradient(count):
    """All singular values are 1: their vectors' own derivatives would be NaN."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(50, 6)), jnp.float32)
    value, grads = jax.value_and_grad(lambda v: losses.total_correlation(v, reg=0.0))(
        [x] * count
    )
    assert value == pytest.approx(6, abs=1e-4)
    for grad in grads:  # correlations are at their maximum
        np.testing.assert_allclose(grad, 0, atol=1e-5)


def test_dead_columns_have_a_finite_gradient():
    a, b = (jnp.asarray(x, jnp.float32) for x in rows(2))
    grads = jax.grad(losses.total_correlation)((a.at[:, 0].set(3.0), b))
    assert all(np.isfinite(g).all() for g in grads)


def test_trace_norm_of_a_repeated_value_has_the_gradient_uv():
    t = jnp.diag(jnp.array([2.0, 2.0, 1.0]))
    np.testing.assert_allclose(jax.grad(losses.trace_norm)(t, 3), np.eye(3), atol=1e-6)


def test_matched_correlation_is_pearsons():
    a, b = rows(2)
    a = a[:, :4]

    def want(views):
        return sum(np.corrcoef(views[0][:, i], views[1][:, i])[0, 1] for i in range(4))

    value, grad = jax.value_and_grad(losses.matched_correlation)(
        jnp.asarray(a), jnp.asarray(b)
    )
    assert value == pytest.approx(want((a, b)), abs=1e-5)
    np.testing.assert_allclose(grad, numeric(want, [a, b])[0], atol=1e-5)
    still = jnp.ones((5, 2))
    assert np.isfinite(jax.grad(losses.matched_correlation)(still, still)).all()


@pytest.mark.parametrize(
    ("n", "k", "message"),
    [(5, 0, "a batch of 5 rows and codes of 5 columns.*above 5"), (40, 5, "1 to 4")],
)
def test_bad_input_says_what_to_change(n, k, message):
    with pytest.raises(UserError, match=message):
        losses.total_correlation(rows(2, n=n), k=k)
