"""Which earlier tokens an image token sees, and what a cache must keep for that.

The one place that knows the attention patterns of DALL-E (Ramesh et al. 2021, figure
11): training masks, tests and cached decoding all read these tables. Everything here
is numpy and made once, when a model is traced.

Legend: l text tokens, g side of the image grid, n = g*g image tokens in raster order,
t = l + n, s slots of a cache.
"""

from typing import NamedTuple

import numpy as np

from mmjax import schema
from mmjax.errors import UserError

KINDS = ("full", "row", "column", "conv")
CONV_KERNEL = 11  # the paper's


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        hint = schema.suggest(kind, (*KINDS, "paper"))
        raise UserError(f"mask {kind!r} is unknown{hint}")


def layer_kinds(masks: str | tuple[str, ...], depth: int) -> tuple[str, ...]:
    """The mask kind of every layer, from the first.

    Args:
      masks: "paper", one kind for all layers, or a kind for each layer. The paper's
        order, layers counted from 1: the last is `conv`, others are `column` where
        (i - 2) % 4 == 0 and `row` elsewhere.
      depth: number of layers.
    """
    if masks == "paper":
        order = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, depth)]
        return (*order, "conv")
    kinds = (masks,) * depth if isinstance(masks, str) else tuple(masks)
    for kind in kinds:
        _check_kind(kind)
    if len(kinds) != depth:
        raise UserError(
            f"masks names {len(kinds)} layers and the model has {depth}: give "
            f"{depth} names, one for all, or 'paper'"
        )
    return kinds


def image_mask(kind: str, grid: int, kernel: int = CONV_KERNEL) -> np.ndarray:
    """bool (n, n), [query, key]: True where an image token sees another, or itself.

    - full: all before it.
    - row: the g + 1 last ones, itself included: back to the same column of the row
      above, across the edge of the grid.
    - column: those above it in its column.
    - conv: the causal half of a kernel x kernel window around it. As in `row`, the
      window is taken in raster order, so at the edges it wraps into the next rows.
    """
    _check_kind(kind)
    token_n = np.arange(grid * grid)
    back_nn = token_n[:, None] - token_n[None]  # how far back the key lies
    causal_nn = back_nn >= 0
    if kind == "full":
        return causal_nn
    if kind == "row":
        return causal_nn & (back_nn <= grid)
    if kind == "column":
        return causal_nn & (back_nn % grid == 0)
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(
            f"conv_kernel is {kernel}: a window around a token is odd, "
            f"use {max(1, kernel - 1)} or {max(1, kernel + 1)}"
        )
    half = kernel // 2
    window = [r * grid + c for r in range(half + 1) for c in range(-half, half + 1)]
    return causal_nn & np.isin(back_nn, window)


def sequence_mask(
    kind: str, text: int, grid: int, kernel: int = CONV_KERNEL
) -> np.ndarray:
    """bool (t, t), [query, key], of a sequence of `text` tokens and then the image.

    Text sees the text before it; the image sees all text, and itself by `kind`.
    """
    n = grid * grid
    mask_tt = np.zeros((text + n, text + n), bool)
    mask_tt[:text, :text] = np.tril(np.ones((text, text), bool))
    mask_tt[text:, :text] = True
    mask_tt[text:, text:] = image_mask(kind, grid, kernel)
    return mask_tt


class Tile(NamedTuple):
    """Queries `start` to `stop` - 1 of a sequence, and the keys that any of them sees.

    The keys are the first `text` tokens, and those from `first` to `last` - 1, which
    follow the text.
    """

    start: int
    stop: int
    text: int
    first: int
    last: int


def tiles(mask_tt: np.ndarray, text: int, size: int) -> tuple[Tile, ...]:
    """A sequence mask cut into tiles: the text's, then of `size` image queries each.

    What no query of a tile sees is left out of it: a third of a causal mask cut in
    two, most of a long image's `row` mask.
    """
    made = [Tile(0, text, text, text, text)]
    for start in range(text, len(mask_tt), size):
        stop = min(start + size, len(mask_tt))
        seen = text + np.flatnonzero(mask_tt[start:stop, text:].any(0))
        made.append(Tile(start, stop, text, int(seen[0]), int(seen[-1]) + 1))
    return tuple(made)


def cut(mask_tt: np.ndarray, tile: Tile) -> np.ndarray:
    """A tile's queries and keys of a sequence mask, bool (q, k)."""
    rows = mask_tt[tile.start : tile.stop]
    parts = rows[:, : tile.text], rows[:, tile.first : tile.last]
    return np.concatenate(parts, axis=1)


class CachePlan(NamedTuple):
    """Where a layer keeps the keys and values of image tokens while decoding.

    Token i is written to slot `slot_n[i]` of `slots`, over whatever was there, and then
    reads `window` slots from `start_n[i]` on, those where `visible_ns[i]` is True.
    """

    slots: int
    window: int
    slot_n: np.ndarray  # int32 (n,)
    start_n: np.ndarray  # int32 (n,)
    visible_ns: np.ndarray  # bool (n, window)


def cache_plan(kind: str, grid: int, kernel: int = CONV_KERNEL) -> CachePlan:
    """The smallest cache from which every token can read all that its mask shows.

    `column` keeps the image column by column, and reads one of them. The others keep a
    ring just as long as their mask reaches back: grid + 1 slots for `row`, the rows in
    reach for `conv`, all for `full`.
    """
    mask_nn = image_mask(kind, grid, kernel)
    token_n = np.arange(grid * grid, dtype=np.int32)
    if kind == "column":
        slots, window = grid * grid, grid
        start_n = token_n % grid * grid
        slot_n = start_n + token_n // grid
    else:
        query, key = np.nonzero(mask_nn)
        slots = window = int((query - key).max()) + 1
        start_n, slot_n = np.zeros_like(token_n), token_n % slots
    held_s = np.full(slots, -1, np.int32)
    visible_ns = np.zeros((len(token_n), window), bool)
    for i in token_n:
        held_s[slot_n[i]] = i
        read_s = held_s[start_n[i] : start_n[i] + window]
        visible_ns[i] = mask_nn[i, read_s] & (read_s >= 0)
    return CachePlan(slots, window, slot_n, start_n, visible_ns)


def held_after(plan: CachePlan, count: int) -> np.ndarray:
    """int32 (slots,): the token in every slot after `count` tokens, -1 for none."""
    held_s = np.full(plan.slots, -1, np.int32)
    held_s[plan.slot_n[:count]] = np.arange(count)  # of equal slots the last one stays
    return held_s
