"""Floating-point operations of a function, counted in its jaxpr.

The compiler's own count visits the body of a loop once, however often it runs, and
after partitioning sees one device's share. Here a scan's body counts as often as it
runs, shapes are global, and what rematerialisation computes again is kept apart. A
while loop, whose length is known only at run time, counts as one turn.

Only matrix products and convolutions are counted, two operations a multiplication, as
is the custom in utilisation figures: elementwise work, norms and softmax are not.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

PyTree = Any
# How JAX names the equations that run a checkpointed function a second time.
_AGAIN = "rematted_computation"


class Product(NamedTuple):
    """One matrix product or convolution, all of its runs together."""

    path: str  # where in the program, scopes joined by '/'
    dtype: str  # of its operands
    flops: float
    again: bool  # whether it is recomputed for the backward pass
    moved: float  # bytes of its operands and its result


class Flops(NamedTuple):
    """Operations of one call, over all devices."""

    model: float  # what the mathematics asks for
    again: float  # what rematerialisation adds
    by_dtype: Mapping[str, float]  # of operands; model and again together
    moved: float  # bytes that the products read and write, model and again together


def count(fn: Callable, *args: PyTree) -> Flops:
    """Operations of `fn(*args)`; arrays or their shapes, nothing is computed.

    Args:
      fn: any traceable function, such as a whole training step, compiled or not.
      args: its arguments, arrays or `jax.ShapeDtypeStruct`s, of global shape.
    """
    return total(jax.make_jaxpr(fn)(*args))


def step_flops(fn: Callable, *args: PyTree) -> float:
    """Model operations of one call, recomputation left out: what MFU is a share of."""
    return count(fn, *args).model


def total(jaxpr: core.ClosedJaxpr) -> Flops:
    """As `count`, of what `jax.make_jaxpr` gave."""
    model = again = moved = 0.0
    by_dtype: dict[str, float] = {}
    for product in products(jaxpr.jaxpr):
        if product.again:
            again += product.flops
        else:
            model += product.flops
        by_dtype[product.dtype] = by_dtype.get(product.dtype, 0.0) + product.flops
        moved += product.moved
    return Flops(model, again, by_dtype, moved)


def products(
    jaxpr: core.Jaxpr, *, runs: float = 1.0, path: str = "", again: bool = False
) -> Iterator[Product]:
    """Every product of a jaxpr and of those inside it.

    Args:
      runs: how often the jaxpr runs. path: the scope it stands in. again: whether it
        is a recomputation.
    """
    for eqn in jaxpr.eqns:
        own = str(eqn.source_info.name_stack)
        where = "/".join(part for part in (path, own) if part)
        second = again or _AGAIN in own
        if eqn.primitive.name in _COUNTED:
            flops = runs * _COUNTED[eqn.primitive.name](eqn)
            moved = runs * sum(_bytes(v.aval) for v in (*eqn.invars, *eqn.outvars))
            yield Product(where, str(eqn.invars[0].aval.dtype), flops, second, moved)
            continue
        inside = [
            list(products(sub, runs=runs * _runs(eqn), path=where, again=second))
            for sub in _inner(eqn)
        ]
        if eqn.primitive.name == "cond":  # one branch runs: the dearest
            inside = [max(inside, key=lambda found: sum(p.flops for p in found))]
        for found in inside:
            yield from found


def _bytes(aval: Any) -> float:
    return float(aval.size * aval.dtype.itemsize)


def _inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """The jaxprs that an equation holds; of a while loop, condition and body."""
    found = []
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, core.Jaxpr):
                found.append(one)
    return found


def _runs(eqn: core.JaxprEqn) -> float:
    """How often the jaxprs of an equation run, over all devices."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":  # shapes inside are those of one shard
        (manual,) = (v for k, v in eqn.params.items() if k.endswith("manual_axes"))
        return math.prod(eqn.params["mesh"].shape[axis] for axis in manual)
    return 1.0


def _dot(eqn: core.JaxprEqn) -> float:
    """Two operations for every element of the output and of the contraction."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2.0 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)


def _conv(eqn: core.JaxprEqn) -> float:
    """Taps that fall on padding or between dilated pixels are zero: not counted.

    So the two gradients of a convolution cost exactly what the convolution does.
    """
    lhs, rhs = (v.aval.shape for v in eqn.invars)
    out = eqn.outvars[0].aval.shape
    numbers = eqn.params["dimension_numbers"]
    channels = rhs[numbers.rhs_spec[1]]  # of one group
    rows, features = (out[i] for i in numbers.out_spec[:2])
    taps = 1
    for i, padding in enumerate(eqn.params["padding"]):
        taps *= _taps(
            size=lhs[numbers.lhs_spec[2 + i]],
            kernel=rhs[numbers.rhs_spec[2 + i]],
            out=out[numbers.out_spec[2 + i]],
            start=padding[0],
            stride=eqn.params["window_strides"][i],
            gaps=eqn.params["lhs_dilation"][i],
            spread=eqn.params["rhs_dilation"][i],
        )
    # A batch group takes its own share of the rows, and `out` has been cut already.
    return 2.0 * rows * features * channels * taps


def _taps(
    *, size: int, kernel: int, out: int, start: int, stride: int, gaps: int, spread: int
) -> int:
    """(output, kernel) pairs of one dimension that meet an input value."""
    place = np.arange(out)[:, None] * stride - start + np.arange(kernel) * spread
    real = (place >= 0) & (place <= (size - 1) * gaps) & (place % gaps == 0)
    return int(real.sum())


_COUNTED = {"dot_general": _dot, "conv_general_dilated": _conv}
