"""Paths, regex masks and the parameter table."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import tree


class Pair(NamedTuple):
    params: dict
    extra: dict


@pytest.fixture
def params():
    return {
        "image": {"dense": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.zeros(3)}},
        "scale": jnp.asarray(1.5),
    }


def test_flatten_names_every_leaf(params):
    flat = tree.flatten(Pair(params, {"list": [jnp.ones(1), None]}))
    assert list(flat) == [
        "params/image/dense/bias",
        "params/image/dense/kernel",
        "params/scale",
        "extra/list/0",
    ]
    with pytest.raises(ValueError, match="'a/b'"):
        tree.flatten({"a": {"b": 1}, "a/b": 2})


def test_unflatten_undoes_flatten(params):
    again = tree.unflatten(tree.flatten(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert tree.unflatten(tree.flatten(3)) == 3
    for leaves in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        with pytest.raises(ValueError, match="'a' is a leaf"):
            tree.unflatten(leaves)


def test_rows_match_numpy():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    leaves = {
        "w": jnp.asarray(values, jnp.bfloat16),
        "ids": jnp.arange(3),
        "key": jax.random.key(0),
        "abstract": jax.ShapeDtypeStruct((2, 2), jnp.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    got = {row.path: row for row in tree.rows(leaves)}
    half = np.asarray(leaves["w"]).astype(np.float64)
    w = got["w"]
    assert (w.shape, w.dtype, w.size, w.bytes) == ((4, 5), "bfloat16", 20, 40)
    assert w.norm == pytest.approx(np.sqrt((half**2).sum()))
    assert (w.mean, w.std) == pytest.approx((half.mean(), half.std()))
    assert got["ids"].norm is None and got["ids"].bytes == 12
    assert got["key"].size == 1 and got["key"].bytes == 8
    assert got["abstract"].norm is None and got["abstract"].bytes == 16
    assert got["empty"].size == 0 and got["empty"].norm is None
    assert all(row.norm is None for row in tree.rows(leaves, stats=False))


def test_table_totals(params):
    text = tree.table(tree.rows(params))
    lines = text.splitlines()
    assert lines[0].split() == [
        "path",
        "shape",
        "dtype",
        "size",
        "bytes",
        "norm",
        "mean",
        "std",
    ]
    kernel = next(line for line in lines if "kernel" in line).split()
    assert kernel[1:4] == ["2x3", "float32", "6"]
    assert "3 leaves" in lines[-1] and "10" in lines[-1] and "40 B" in lines[-1]
    norm = np.sqrt(6 * 4 + 1.5**2)
    assert f"{norm:.4g}" in lines[-1]
    leaves = {**params, "ids": np.zeros(4, np.int32)}
    mixed = tree.table(tree.rows(leaves, stats=False))
    assert "norm" not in mixed
    assert "total float32" in mixed and "total int32" in mixed
    assert mixed.splitlines()[-1].split()[:3] == ["total", "4", "leaves"]
    assert "0 leaves" in tree.table([])


def test_bytes_text():
    assert tree.bytes_text(1023) == "1023 B"
    assert tree.bytes_text(1536) == "1.5 KiB"
    assert tree.bytes_text(5 * 2**40) == "5 TiB"


def test_a_mask_has_the_paths_that_a_pattern_is_found_in():
    params = {"a": {"kernel": 1, "bias": 2}, "kernel_scale": 3}
    hit = {"a": {"kernel": True, "bias": False}, "kernel_scale": False}
    assert tree.mask(params, "kernel$") == hit
    assert tree.mask(params, ("^a/", "scale")) == jax.tree.map(lambda _: True, params)
