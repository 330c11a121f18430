"""Convolutions and resampling against numpy and against their plain forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from mmjax.nn import convnet


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [3, 7])
def test_conv_matches_scipy(size):
    x, kernel = normal(2, 6, 8, 3), normal(size, size, 3, 4, seed=1)
    wanted = np.zeros((2, 6, 8, 4))
    for b, c, f in np.ndindex(2, 3, 4):
        wanted[b, ..., f] += scipy.signal.correlate2d(
            x[b, ..., c].astype(float), kernel[..., c, f], mode="same"
        )
    np.testing.assert_allclose(convnet.conv(x, kernel), wanted, atol=1e-4)


def test_upsample_repeats():
    x = normal(2, 3, 5, 4)
    np.testing.assert_array_equal(convnet.upsample(x), x.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("size, c, f", [(3, 5, 2), (3, 2, 5), (7, 3, 4)])
def test_convs_gradients_are_the_librarys(size, c, f):
    x, kernel = normal(2, 6, 8, c), normal(size, size, c, f, seed=1)
    weight = normal(2, 6, 8, f, seed=2)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradients(f):
        both = jax.grad(lambda *a: (f(*a) * weight).sum(), argnums=(0, 1))
        return jax.jit(both)(x, kernel)

    for ours, wanted in zip(gradients(convnet.conv), gradients(plain), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_max_pool_matches_numpy_and_its_gradient_goes_to_the_maximum():
    x = normal(2, 4, 6, 3)
    wanted = x.reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    np.testing.assert_array_equal(convnet.max_pool(x).ravel(), wanted.max(1))
    weight = normal(2, 2, 3, 3, seed=1)
    gradient = jax.jit(jax.grad(lambda x: (convnet.max_pool(x) * weight).sum()))
    up = [a.repeat(2, 1).repeat(2, 2) for a in (convnet.max_pool(x), weight)]
    up = [np.asarray(a) for a in up]
    np.testing.assert_array_equal(gradient(x), np.where(x == up[0], up[1], 0))
    same = gradient(np.ones_like(x))  # of equal maxima, the first of its tile
    np.testing.assert_array_equal(same[:, ::2, ::2], weight)
    assert not same[:, 1::2].any() and not same[:, :, 1::2].any()


@pytest.mark.parametrize("h, w", [(1, 1), (3, 5)])
def test_conv_upsampled_is_the_conv_of_the_upsampled(h, w):
    x, kernel = normal(2, h, w, 3), normal(3, 3, 3, 4, seed=1)

    def plain(x, kernel):
        return convnet.conv(convnet.upsample(x), kernel)

    got = convnet.conv_upsampled(x, kernel)
    np.testing.assert_allclose(got, plain(x, kernel), atol=1e-5)
    weight = normal(*got.shape, seed=2)

    def gradients(f):
        return jax.grad(lambda *a: (f(*a) * weight).sum(), argnums=(0, 1))(x, kernel)

    for ours, wanted in zip(
        gradients(convnet.conv_upsampled), gradients(plain), strict=True
    ):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_modules_start_as_the_released_code_does():
    x = jnp.ones((1, 4, 4, 64))
    made = convnet.Conv(96).init(jax.random.key(0), x)["params"]
    assert made["kernel"].shape == (3, 3, 64, 96)
    assert made["kernel"].std() == pytest.approx(1 / np.sqrt(64 * 9), rel=0.02)
    assert not np.any(made["bias"])
    point = convnet.point(256, width=64)
    made = point.init(jax.random.key(0), x)["params"]
    assert made["kernel"].shape == (64, 256)
    assert made["kernel"].std() == pytest.approx(1 / 8, rel=0.02)
    assert not np.any(made["bias"])


def test_upsampling_module_has_the_plain_ones_parameters():
    x = normal(1, 3, 3, 8)
    plain, up = convnet.Conv(4), convnet.Conv(4, upsample=True)
    made = plain.init(jax.random.key(0), x)
    made["params"]["bias"] = jnp.arange(4.0)
    wanted = plain.apply(made, convnet.upsample(x))
    np.testing.assert_allclose(up.apply(made, x), wanted, atol=1e-5)


def test_half_precision_is_computed_in():
    x = normal(1, 4, 4, 8)
    module = convnet.Conv(4, dtype="bfloat16")
    made = module.init(jax.random.key(0), x)
    assert made["params"]["kernel"].dtype == jnp.float32
    assert module.apply(made, x).dtype == jnp.bfloat16


def test_gain_multiplies_the_result():
    x = normal(1, 4, 4, 8)
    for make in (convnet.Conv, lambda f, **more: convnet.point(f, width=8, **more)):
        made = make(4).init(jax.random.key(0), x)
        made["params"]["bias"] = jnp.arange(4.0)
        wanted = 0.25 * make(4).apply(made, x)
        np.testing.assert_allclose(make(4, gain=0.25).apply(made, x), wanted, atol=1e-6)


@pytest.mark.parametrize("c, f", [(3, 8), (8, 3)])
def test_points_gradients_are_the_librarys(c, f):
    x, kernel, weight = normal(50, c), normal(c, f, seed=1), normal(50, f, seed=2)

    def gradients(mix):
        both = jax.grad(lambda *a: (mix(*a) * weight).sum(), argnums=(0, 1))
        return jax.jit(both)(x, kernel)

    for ours, wanted in zip(gradients(convnet.mix), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)
