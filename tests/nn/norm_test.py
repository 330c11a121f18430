"""Norms against numpy; batch statistics over shards against those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.nn.norm import BatchNorm, GroupNorm, LayerNorm


def x_bhwc(shape=(4, 3, 3, 16)):
    return 2.0 + 3.0 * jax.random.normal(jax.random.key(0), shape)


def test_layer_norm_is_numpys():
    x = np.asarray(x_bhwc(), np.float64)
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    got, _ = jax.jit(LayerNorm().init_with_output)(jax.random.key(0), x_bhwc())
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_layer_norm_of_bfloat16_is_computed_in_float32():
    x = (100.0 + x_bhwc()).astype("bfloat16")
    got, _ = jax.jit(LayerNorm(dtype="bfloat16").init_with_output)(jax.random.key(0), x)
    want, _ = jax.jit(LayerNorm().init_with_output)(
        jax.random.key(0), x.astype("float32")
    )
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want.astype("bfloat16"))


def test_group_norm_is_numpys():
    x = np.asarray(x_bhwc(), np.float64).reshape(4, 9, 4, 4)
    centred = x - x.mean((1, 3), keepdims=True)
    want = centred / np.sqrt(x.var((1, 3), keepdims=True) + 1e-5)
    got, _ = jax.jit(GroupNorm(4).init_with_output)(jax.random.key(0), x_bhwc())
    np.testing.assert_allclose(got, want.reshape(4, 3, 3, 16), atol=1e-4)


def test_batch_norm_trains_on_the_batch_and_evaluates_on_averages():
    x, module = x_bhwc(), BatchNorm()
    variables = module.init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    y, new = module.apply(variables, x, train=True, mutable=["batch_stats"])
    rows = np.asarray(x, np.float64).reshape(-1, 16)
    mean, var = rows.mean(0), rows.var(0)
    want = (rows - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(np.reshape(y, (-1, 16)), want, atol=1e-5)
    stats = new["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)
    y = module.apply({**variables, **new}, x, train=False)
    want = (rows - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5)
    np.testing.assert_allclose(np.reshape(y, (-1, 16)), want, atol=1e-5)


def test_batch_norm_over_shards_is_that_of_the_whole():
    x, module = x_bhwc(), BatchNorm()
    variables = module.init(jax.random.key(0), x, train=True)

    def run(x, axis):
        def loss(x):
            y, new = module.apply(
                variables, x, train=True, axis=axis, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.sin(y)), (y, new)

        return jax.jit(jax.grad(loss, has_aux=True))(x)

    grad, (y, new) = run(x, None)
    shards = x.reshape(2, 2, *x.shape[1:])
    grad_s, (y_s, new_s) = jax.vmap(lambda x: run(x, "data"), axis_name="data")(shards)
    np.testing.assert_allclose(y_s.reshape(y.shape), y, atol=1e-5)
    np.testing.assert_allclose(grad_s.reshape(y.shape), grad, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5), new_s, new
    )
