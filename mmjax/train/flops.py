"""Floating-point operations of a function, counted in its jaxpr.

The compiler's own count visits the body of a loop once, however often it runs, and
after partitioning sees one device's share. Here a scan's body counts as often as it
runs, shapes are global, and what rematerialisation computes again is kept apart. A
while loop, whose length is known only at run time, counts as one turn.

Only matrix products and convolutions are counted, two operations a multiplication, as
is the custom in utilisation figures: elementwise work, norms and softmax are not.
"""

import collections
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
    listed = list(products(jax.make_jaxpr(fn)(*args).jaxpr))
    by_dtype: dict[str, float] = collections.defaultdict(float)
    for product in listed:
        by_dtype[product.dtype] += product.flops
    model = sum((p.flops for p in listed if not p.again), 0.0)
    again = sum((p.flops for p in listed if p.again), 0.0)
    moved = sum((p.moved for p in listed), 0.0)
    return Flops(model, again, dict(by_dtype), moved)


def step_flops(fn: Callable, *args: PyTree) -> float:
    """Model operations of one call, recomputation left out: what MFU is a share of."""
    return count(fn, *args).model


def products(
    jaxpr: core.Jaxpr, *, runs: float = 1.0, path: str = "", again: bool = False
) -> Iterator[Product]:
    """Every product of a jaxpr and of those inside it.

    Args:
      runs: how often the jaxpr runs.
      path: the scope it stands in.
      again: whether it is a recomputation.
    """
    for eqn in jaxpr.eqns:
        own = str(eqn.source_info.name_stack)
        scope = "/".join(part for part in (path, own) if part)
        second = again or _AGAIN in own
        if eqn.primitive.name in _COUNTED:
            flops = runs * _COUNTED[eqn.primitive.name](eqn)
            avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
            moved = runs * sum(float(a.size * a.dtype.itemsize) for a in avals)
            yield Product(scope, str(avals[0].dtype), flops, second, moved)
            continue
        inside = [
            list(products(sub, runs=runs * _runs(eqn), path=scope, again=second))
            for value in eqn.params.values()  # of a while loop, condition and body
            for sub in (value if isinstance(value, tuple | list) else (value,))
            if isinstance(sub, core.ClosedJaxpr | core.Jaxpr)
        ]
        if eqn.primitive.name == "cond":  # one branch runs: the dearest
            inside = [max(inside, key=lambda branch: sum(p.flops for p in branch))]
        for listed in inside:
            yield from listed


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
    out, params = eqn.outvars[0].aval.shape, eqn.params
    numbers = params["dimension_numbers"]
    channels = rhs[numbers.rhs_spec[1]]  # of one group
    rows, features = (out[i] for i in numbers.out_spec[:2])
    taps = 1  # (output, kernel) pairs that meet an input value
    for i, (start, _) in enumerate(params["padding"]):
        gap, spread = params["lhs_dilation"][i], params["rhs_dilation"][i]
        outputs = np.arange(out[numbers.out_spec[2 + i]])[:, None]
        kernel = np.arange(rhs[numbers.rhs_spec[2 + i]])
        place = outputs * params["window_strides"][i] - start + kernel * spread
        last = (lhs[numbers.lhs_spec[2 + i]] - 1) * gap
        taps *= int(((place >= 0) & (place <= last) & (place % gap == 0)).sum())
    # A batch group takes its own share of the rows, and `out` has been cut already.
    return 2.0 * rows * features * channels * taps


def _attention(eqn: core.JaxprEqn, products: int, *, heads: int, first: int) -> float:
    """Of a fused kernel, all pairs of query and key; masks leave out nothing.

    Args:
      products: what the mathematics asks for, two forwards and four for the gradient.
      heads: axis of them. first: operand that is the queries; keys follow.
    """
    q, k = (v.aval.shape for v in eqn.invars[first : first + 2])
    return 2.0 * products * math.prod(q) * k[3 - heads]


def _split(eqn: core.JaxprEqn) -> float:
    """Splash attention (b, h, tokens, d), see mmjax.nn.attention_kernels."""
    back = len(eqn.outvars) == 3
    return _attention(eqn, 4 if back else 2, heads=1, first=int(back))


_COUNTED = {
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "custom_partitioning": _split,
    # cuDNN's, (b, tokens, h, d)
    "dot_product_attention_fwd_wrapper": lambda e: _attention(e, 2, heads=2, first=0),
    "dot_product_attention_bwd_wrapper": lambda e: _attention(e, 4, heads=2, first=0),
}
