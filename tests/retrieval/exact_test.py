"""Exact search against a stable sort of all scores, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.parallel import Layout
from mmjax.retrieval import exact


def placed(devices):
    return Layout(devices=jax.devices()[:devices]).batch_sharding


def reference(queries_qd, rows_nd, k):
    scores = queries_qd.astype(np.float64) @ rows_nd.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("resident", [0, 1 << 30])
def test_a_stable_sort_whatever_the_chunks(devices, resident):
    rng = np.random.default_rng(0)
    # small whole numbers: exact products, and thousands of ties
    rows = rng.integers(-2, 3, (5000, 8)).astype(np.float32)
    queries = rng.integers(-2, 3, (70, 8)).astype(np.float32)
    shards = [rows[:1700], rows[1700:]]
    found = exact.Exact(shards, placed(devices), chunk=1024, resident=resident)
    scores, order = reference(queries, rows, 10)
    got_scores, got = found.search(queries, 10)
    np.testing.assert_array_equal(got, order)
    np.testing.assert_array_equal(got_scores, scores)
    assert got.dtype == np.int64 and got_scores.dtype == np.float32
    np.testing.assert_array_equal(found.search(queries[:1], 10)[1], order[:1])
    np.testing.assert_array_equal(found.search(queries[:5], 10)[1], order[:5])


def test_fewer_rows_than_asked_for():
    rows = np.eye(5, 3, dtype=np.float32)
    scores, got = exact.Exact([rows], placed(4)).search(rows[1:2], 9)
    np.testing.assert_array_equal(got, [[1, 0, 2, 3, 4]])
    np.testing.assert_array_equal(scores, [[1, 0, 0, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_rows_in_half_precision_score_as_what_they_hold(dtype):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3000, 32)).astype(dtype)
    queries = rng.standard_normal((9, 32)).astype(np.float32)
    scores, order = reference(queries, rows.astype(np.float32), 5)
    got_scores, got = exact.Exact([rows], placed(1), chunk=512).search(queries, 5)
    np.testing.assert_array_equal(got, order)
    np.testing.assert_allclose(got_scores, scores, atol=1e-4)


@pytest.mark.parametrize("k", [1, 7, 40])
def test_top_is_lax_top_k(k):
    rng = np.random.default_rng(2)
    scores = jnp.asarray(rng.integers(0, 50, (6, 64 * 30)), jnp.float32)
    want, at = jax.lax.top_k(scores, k)
    best, found = jax.jit(exact.top, static_argnums=1)(scores, k)
    np.testing.assert_array_equal(best, want)
    np.testing.assert_array_equal(found, at)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((2, 4), np.float32), 1, r"\(2, 4\) in an index of width 3"),
        (np.zeros(3, np.float32), 1, r"give \(q, 3\)"),
        (np.full((1, 3), np.nan, np.float32), 1, "NaN or Inf"),
        (np.zeros((1, 3), np.float32), 0, "use 1 or more"),
    ],
)
def test_queries_that_do_not_fit(queries, k, message):
    with pytest.raises(UserError, match=message):
        exact.Exact([np.eye(3, dtype=np.float32)], placed(1)).search(queries, k)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 70, 999])
def test_a_row_that_is_not_finite_is_no_hit(number, row):
    rows = np.ones((1000, 4), np.float32)
    rows[row, 2] = number
    searched = exact.Exact([rows[:300], rows[300:]], placed(4), chunk=512)
    with pytest.raises(UserError, match=f"row {row} of the index holds NaN or Inf"):
        searched.search(np.ones((3, 4), np.float32), 2)
