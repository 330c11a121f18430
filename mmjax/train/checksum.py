"""One number for every array of a tree, to tell later that it is still the same.

The sums are taken on the devices, each over its own shards, so they cost one pass over
the memory and no transfer; integers add up to the same number on any mesh.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import tree

PyTree = Any


def _mixed(word: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3 (Appleby), a bijection of 32-bit words."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


@jax.jit  # traced once for all arrays of a shape
def _sum(x: jax.Array) -> jax.Array:
    """uint32 scalar of an array's bits and their places, modulo 2^32.

    A changed word always changes it; several changed words leave it as it was once
    in 2^32. There is no reshape, which would bring a sharded array together.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype != jnp.bool_:
        bits = min(8 * x.dtype.itemsize, 32)
        x = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}"))
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        at = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place + at * jnp.uint32(stride % (1 << 32))
        stride *= x.shape[axis]
    # Mixed before it meets the word: places alone are too regular.
    return jnp.sum(_mixed(x.astype(jnp.uint32) ^ _mixed(place + 1)), dtype=jnp.uint32)


def sums(arrays: PyTree) -> dict[str, int]:
    """'/'-joined path -> 32-bit sum of each array of a tree (jax arrays, keys too)."""
    leaves = tree.flatten(arrays)
    if not leaves:
        return {}
    placed = next(iter(leaves.values())).sharding
    if isinstance(placed, NamedSharding):  # every process gets to see the sums
        placed = NamedSharding(placed.mesh, PartitionSpec())
    else:
        placed = None
    stacked = jax.jit(lambda xs: jnp.stack([_sum(x) for x in xs]), out_shardings=placed)
    values = stacked(list(leaves.values()))
    return dict(zip(leaves, np.asarray(values).tolist(), strict=True))


def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """The paths whose sums differ, or that only one of the two has."""
    return sorted({path for path, _ in before.items() ^ after.items()})
