"""Low-rank changes of weights (LoRA, Hu et al. 2021) for any tree of parameters.

A change is a tree that has, in the place of a chosen weight, a dict of arrays:

| arrays | the changed weight | shapes of a weight (..., i, o) |
|---|---|---|
| a, b | weight + scale * (a @ b) | a (..., i, r), b (r, o) |
| delta | weight + delta | as the weight |

Weights of three axes are layers stacked by `nn.scan`, and have one b a layer: b is
(n, r, o). Those of convolutions (h, w, i, o) share b between their taps, so that the
change is one matrix (h * w * i, o) of rank r.

Legend: i inputs, o outputs, r rank, n layers.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax import tree
from mmjax.errors import UserError

PyTree = Any


def chosen(
    params: PyTree, targets: Sequence[str], also: Sequence[str] = ()
) -> dict[str, str]:
    """Path -> `low_rank` or `delta`, of the weights that a change has.

    Args:
      params: arrays or their shapes.
      targets: regexes of the weights with factors.
      also: regexes of the parameters that change by as many numbers as they have.

    Raises:
      UserError: a regex that matches nothing, targets among them that are no matrix, or
        one parameter that both match.
    """
    leaves, kinds = tree.flatten(params), {}
    for key, kind, patterns in (
        ("targets", "low_rank", targets),
        ("also", "delta", also),
    ):
        for pattern in patterns:
            own = [path for path in leaves if re.search(pattern, path)]
            if not own:
                raise UserError(
                    f"config.task.{key}: {pattern!r} matches none of {len(leaves)} "
                    f"parameters; they begin with {', '.join(list(leaves)[:3])}"
                )
            for path in own:
                if kinds.setdefault(path, kind) != kind:
                    raise UserError(
                        f"config.task.also: {pattern!r} matches {path}, which a regex "
                        "of targets matches as well; narrow one of the two"
                    )
                if kind == "low_rank" and leaves[path].ndim < 2:
                    raise UserError(
                        f"config.task.targets: {pattern!r} matches {path} of shape "
                        f"{tuple(leaves[path].shape)}, which is no matrix: name it in "
                        "config.task.also, or narrow the regex to kernels"
                    )
    return kinds


def init(
    key: jax.Array,
    params: PyTree,
    targets: Sequence[str],
    rank: int,
    also: Sequence[str] = (),
) -> PyTree:
    """A change that changes nothing yet: b and delta are 0.

    a is uniform within 1 / sqrt(inputs), as Hu et al. release it (Kaiming's of slope
    sqrt 5). Arguments and errors are those of `chosen`.
    """
    leaves, change = tree.flatten(params), {}
    for number, (path, kind) in enumerate(
        sorted(chosen(params, targets, also).items())
    ):
        shape, dtype = leaves[path].shape, leaves[path].dtype
        if kind == "delta":
            change[f"{path}/delta"] = jnp.zeros(shape, dtype)
            continue
        layers = shape[:1] if len(shape) == 3 else ()
        reach = math.prod(shape[len(layers) : -1]) ** -0.5
        a_key = jax.random.fold_in(key, number)
        a_shape = (*shape[:-1], rank)
        change[f"{path}/a"] = jax.random.uniform(a_key, a_shape, dtype, -reach, reach)
        change[f"{path}/b"] = jnp.zeros((*layers, rank, shape[-1]), dtype)
    return tree.unflatten(change)


def merge(params: PyTree, change: PyTree, scale: float) -> PyTree:
    """The parameters with a change in them: the model of these is the adapted one.

    scale: alpha / rank in the paper, section 4.1. The product is computed in float32 on
      every device, whatever precision matrices have there by default.
    """
    parts: dict[str, dict[str, jax.Array]] = {}
    for path, value in tree.flatten(change).items():
        place, _, name = path.rpartition("/")
        parts.setdefault(place, {})[name] = value

    def merged(path: str, weight: jax.Array) -> jax.Array:
        own = parts.get(path)
        if own is None:
            return weight
        if "delta" in own:
            return weight + own["delta"]
        highest = jax.lax.Precision.HIGHEST
        product = jnp.matmul(own["a"], own["b"], precision=highest)
        return weight + scale * product

    return tree.map_with_path(merged, params)
