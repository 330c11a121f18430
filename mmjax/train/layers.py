"""Layer-wise decay of the learning rate, by the numbers in parameters' paths."""

import re
from typing import Any

import jax.numpy as jnp
import optax

from mmjax import tree
from mmjax.errors import UserError

PyTree = Any
# `block_3`, `stage_1_block_0`, `down_1` and the stacked `blocks` of nn.scan
_LAYER = re.compile(r"(?:^|/)((?:stage_\d+_block|block|layer|stage|down)_\d+|blocks)/")
_FIRST = re.compile(r"embedding|patches|token$|norm_pre|stem|(^|/)conv_\d")


def factors(params: PyTree, decay: float, where: str) -> dict[str, Any]:
    """What the learning rate of each parameter is multiplied by: path -> factor.

    Of a tower (the first name of a path) with L numbered layers, layer k, counted from
    1, has decay^(L + 1 - k); what comes before them (embeddings, patches, stems) has
    decay^(L + 1), and all else 1. So do Clark et al. 2020 (ELECTRA) and Bao et al. 2021
    (BEiT). A stack of layers has an array of factors, broadcast over its other axes.

    Args:
      params: arrays or their shapes.
      where: the key of the config, for messages.

    Raises:
      UserError: no parameter belongs to a numbered layer.
    """
    leaves = tree.flatten(params)
    numbers: dict[str, dict[str, list[tuple]]] = {}  # by tower, by path: its layers
    for path, leaf in leaves.items():
        found = _LAYER.search(path)
        if not found:
            continue
        own = [tuple(map(int, re.findall(r"\d+", found[1])))]
        if found[1] == "blocks":
            own = [(i,) for i in range(leaf.shape[0])]
        numbers.setdefault(path.partition("/")[0], {})[path] = own
    if not numbers:
        raise UserError(
            f"{where}.layer_decay is {decay}, and no parameter lies in a numbered "
            f"layer such as block_0; they begin with {', '.join(list(leaves)[:3])}: "
            "use layer_decay 1, or lr_mult"
        )
    out = dict.fromkeys(leaves, 1.0)
    for tower, layered in numbers.items():
        ranks = sorted({number for own in layered.values() for number in own})
        depth = {number: len(ranks) - k for k, number in enumerate(ranks)}
        for path, leaf in leaves.items():
            if path in layered:
                powers = [decay ** depth[number] for number in layered[path]]
                shape = (-1, *(1,) * (leaf.ndim - 1))
                stacked = len(powers) > 1
                out[path] = jnp.reshape(jnp.array(powers), shape)
                out[path] = out[path] if stacked else powers[0]
            elif path.partition("/")[0] == tower and _FIRST.search(path):
                out[path] = decay ** (len(ranks) + 1)
    return out


def decayed(params: PyTree, decay: float, where: str) -> optax.GradientTransformation:
    """Multiplies updates by `factors`."""
    by_path = factors(params, decay, where)

    def scaled(updates: PyTree, _: PyTree) -> PyTree:
        return tree.map_with_path(lambda path, update: update * by_path[path], updates)

    return optax.stateless(scaled)
