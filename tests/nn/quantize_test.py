"""Quantisation against numpy, and what a codebook must do whatever the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import quantize

K, D = 7, 5


def cloud(n=200, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def distances_np(x, codes):
    x, codes = np.asarray(x, np.float64), np.asarray(codes, np.float64)
    return ((x[:, None] - codes[None]) ** 2).sum(-1)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_the_nearest(shift):
    x, codes = cloud() + shift, cloud(K, seed=1) + shift
    want = distances_np(x, codes)
    ids = jax.jit(quantize.nearest)(x, codes)
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, want.argmin(1))


def test_quantizing_twice_is_quantizing_once():
    codes = jnp.asarray(cloud(64, 3, seed=1))
    codes = codes.at[9].set(codes[4])  # two equal codes: the lower one is taken
    once = codes[quantize.nearest(cloud(500, 3), codes)]
    twice = codes[quantize.nearest(once, codes)]
    np.testing.assert_array_equal(once, twice)
    assert quantize.nearest(codes[9:10], codes)[0] == 4


def test_the_gradient_passes_straight_through():
    x, codes = jnp.asarray(cloud(6)), jnp.asarray(cloud(K, seed=1))
    weights = jnp.asarray(cloud(6, seed=2))

    def out(x, codes):
        q = codes[quantize.nearest(x, codes)]
        return (jnp.sin(quantize.straight_through(x, q)) * weights).sum()

    value, grad = jax.value_and_grad(out)(x, codes)
    q = np.asarray(codes)[distances_np(x, codes).argmin(1)]
    np.testing.assert_allclose(value, (np.sin(q) * weights).sum(), rtol=1e-5)
    # as if the output were a function of q, and q of x the identity
    np.testing.assert_allclose(grad, np.cos(q) * weights, atol=1e-6)
    assert not np.any(jax.grad(out, argnums=1)(x, codes))


def test_usage_counts_per_image():
    x, ids = cloud(12).reshape(3, 4, D), np.array([[0, 0, 2, 6], [2, 2, 2, 2], [5] * 4])
    count, total = quantize.usage(jnp.asarray(x), jnp.asarray(ids), K)
    want = np.stack([x[ids == k].sum(0) for k in range(K)]) / 3
    np.testing.assert_allclose(count, np.bincount(ids.ravel(), minlength=K) / 3)
    np.testing.assert_allclose(total, want, atol=1e-6)
    assert count.sum() == pytest.approx(4)
    halves = [
        quantize.usage(jnp.asarray(x[i : i + 1]), ids[i : i + 1], K) for i in (0, 1, 2)
    ]
    for got, part in zip((count, total), zip(*halves, strict=True), strict=True):
        np.testing.assert_allclose(got, np.mean(part, axis=0), atol=1e-6)


def ema_np(count, total, batches, decay, eps):
    """taming-transformers' EMAVectorQuantizer, its counts divided by the images."""
    for x, ids in batches:
        one_hot = np.eye(len(count))[ids.ravel()]
        count = decay * count + (1 - decay) * one_hot.sum(0) / len(x)
        flat = x.reshape(-1, x.shape[-1])
        total = decay * total + (1 - decay) * one_hot.T @ flat / len(x)
    n = count.sum()
    smoothed = (count + eps) / (n + len(count) * eps) * n
    return count, total, total / smoothed[:, None]


def test_the_codebook_follows_its_moving_averages():
    n, decay, eps = 4, 0.9, 1e-2
    book = quantize.fresh(jax.random.key(0), K, D, n)
    rng = np.random.default_rng(1)
    batches = [
        (cloud(3 * n, seed=s).reshape(3, n, D), rng.integers(0, K - 1, (3, n)))
        for s in range(4)
    ]
    want = ema_np(np.asarray(book.count), np.asarray(book.sum), batches, decay, eps)
    for x, ids in batches:
        count, total = quantize.usage(jnp.asarray(x), jnp.asarray(ids), K)
        book = quantize.follow(book, count, total, decay=decay, eps=eps)
    for got, expected in zip((book.count, book.sum, book.codes), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_an_unused_code_stays():
    n = 4
    first = quantize.fresh(jax.random.key(0), K, D, n)
    book = first
    for s in range(50):
        count, total = quantize.usage(
            jnp.asarray(cloud(n, seed=s))[None], jnp.zeros((1, n), jnp.int32), K
        )
        book = quantize.follow(book, count, total, decay=0.95, eps=1e-7)
    np.testing.assert_allclose(book.codes[1:], first.codes[1:], atol=1e-3)
    assert not np.allclose(book.codes[0], first.codes[0], atol=0.1)


def clusters(k=16, each=60, d=4):
    rng = np.random.default_rng(0)
    centres = rng.uniform(-10, 10, (k, d))
    x = centres.repeat(each, 0) + 0.05 * rng.normal(size=(k * each, d))
    # nine rows in ten are one cluster, as the background of pictures is
    x = np.concatenate([x, centres[:1] + 0.05 * rng.normal(size=(9 * len(x), d))])
    return rng.permutation(x).astype(np.float32), centres


def test_kmeans_finds_what_random_rows_do_not():
    x, centres = clusters()
    found = jax.jit(
        lambda key, x: quantize.kmeans(key, x, 16, iterations=5, limit=1000)
    )(jax.random.key(0), x)
    error = distances_np(x, np.asarray(found)).min(1).mean()
    rows = x[np.random.default_rng(1).permutation(len(x))[:16]]
    at_random = distances_np(x, rows).min(1).mean()
    assert error < 0.02 < 10 * error < at_random
    off = distances_np(centres, np.asarray(found)).min(1)
    assert off.max() < 0.01, "every cluster has its centre"


def test_kmeans_of_a_subset_and_of_few_rows():
    x, _ = clusters()
    few = quantize.kmeans(jax.random.key(0), x, 16, iterations=5, limit=100)
    assert distances_np(x, np.asarray(few)).min(1).mean() < 0.1
    one = np.ones((3, D), np.float32)
    got = quantize.kmeans(jax.random.key(0), jnp.asarray(one), 8, iterations=3)
    np.testing.assert_allclose(got, np.ones((8, D)), atol=1e-6)


def test_candidates_are_where_the_error_is():
    x = jnp.asarray(cloud(20).reshape(4, 5, D))
    off = jnp.zeros((4, 5)).at[jnp.arange(4), jnp.array([0, 4, 2, 2])].set(1.0)
    keys = jax.random.split(jax.random.key(0), 4)
    got = quantize.candidates(keys, x, x + off[..., None])
    np.testing.assert_array_equal(got, x[jnp.arange(4), jnp.array([0, 4, 2, 2])])


def test_dead_codes_move_to_candidates_each_served_once():
    book = quantize.fresh(jax.random.key(0), K, D, n=14)
    count = jnp.array([6.0, 0.0, 4.0, 1e-6, 0.0, 3.999, 0.0])
    book = book._replace(count=count, sum=book.codes * count[:, None])
    rows = jnp.asarray(cloud(3, seed=5))
    new, dead = quantize.revive(jax.random.key(1), book, rows, below=0.01)
    assert dead == 4
    moved = [k for k in range(K) if not np.array_equal(new.codes[k], book.codes[k])]
    assert moved == [1, 3, 4], "in order, as far as the candidates go"
    got = {tuple(np.asarray(new.codes[k])) for k in moved}
    assert got == {tuple(np.asarray(row)) for row in rows}
    for k in moved:
        assert new.count[k] == pytest.approx(10 * 0.01 * float(count.sum()) / K)
        np.testing.assert_allclose(new.sum[k] / new.count[k], new.codes[k], rtol=1e-6)
    for k in (0, 2, 5):
        np.testing.assert_array_equal(new.sum[k], book.sum[k])


def test_revival_brings_a_dead_codebook_into_use():
    x, _ = clusters()
    x = jnp.asarray(x[:9600]).reshape(48, 200, 4)
    ids_of = jax.jit(lambda codes: quantize.nearest(x.reshape(-1, 4), codes))

    @jax.jit
    def step(book, key, below):
        ids = quantize.nearest(x.reshape(-1, 4), book.codes).reshape(48, 200)
        count, total = quantize.usage(x, ids, 16)
        book = quantize.follow(book, count, total, decay=0.9, eps=1e-5)
        rows = quantize.candidates(jax.random.split(key, 48), x, book.codes[ids])
        return quantize.revive(key, book, rows, below=below)[0]

    far = quantize.fresh(jax.random.key(0), 16, 4, 200)
    far = far._replace(codes=far.codes + 50, sum=far.sum + 50 * far.count[:, None])
    used = {}
    for below in (0.0, 0.01):
        book = far
        for i in range(60):
            book = step(book, jax.random.key(i), below)
        used[below] = len(np.unique(ids_of(book.codes)))
    assert used[0.0] <= 2 and used[0.01] >= 14, used
