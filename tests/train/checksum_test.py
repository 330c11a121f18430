"""Sums of arrays: the same on any mesh, another for any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.train import checksum


def value(array) -> int:
    return checksum.sums({"x": jnp.asarray(array)})["x"]


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "int8", "uint8", "bool"]
)
def test_any_one_changed_element_is_seen(dtype):
    x_n = np.asarray(jax.random.bits(jax.random.key(0), (40,)) % 2).astype(dtype)
    for i in range(40):
        other_n = x_n.copy()
        other_n[i] = 1 - other_n[i]
        assert value(other_n) != value(x_n)


def test_what_float_comparison_does_not_see():
    assert value([0.0, 1.0]) != value([-0.0, 1.0])
    assert value([0.0, 1.0]) != value([1.0, 0.0])
    signs_n = np.ones(64, np.float32)
    signs_n[[3, 40]] = -1  # two top bits: a plain weighted sum would cancel them
    assert value(signs_n) != value(np.ones(64, np.float32))
    nan_n = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert value(nan_n[:1]) == value(nan_n[:1]) != value(nan_n[1:])


def test_shape_scalar_empty_and_key():
    keys = {"a": jax.random.key(1), "b": jax.random.key(2), "c": jnp.zeros((0, 3))}
    found = checksum.sums({**keys, "d": {"e": jnp.int32(4)}})
    assert list(found) == ["a", "b", "c", "d/e"]
    assert found["a"] != found["b"] and found["c"] == 0
    assert checksum.sums({}) == {}


@pytest.mark.parametrize(
    "spec", [(), ("data",), (None, "fsdp"), ("data", "fsdp"), ("fsdp", "data")]
)
def test_any_mesh_gives_the_same(spec):
    grid = np.asarray(jax.devices()[:4]).reshape(2, 2)
    mesh = Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    x = jax.random.normal(jax.random.key(0), (8, 6, 5))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert checksum.sums({"x": sharded}) == checksum.sums({"x": x})


def test_changed_names_what_differs_or_is_missing():
    before = {"a": 1, "b": 2, "c": 3}
    assert checksum.changed(before, dict(before)) == []
    assert checksum.changed(before, {"a": 1, "b": 4, "d": 3}) == ["b", "c", "d"]
