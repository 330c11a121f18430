"""Pytrees by path: `image/blocks_0/attn/kernel` names one leaf everywhere."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

PyTree = Any
_path_name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by '/'-joined path, in the tree's own order; None is no leaf.

    Raises:
      ValueError: if two leaves share a path (a key that itself holds a '/').
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = _path_name(path)
        if name in leaves:
            raise ValueError(f"two leaves are called {name!r}: a key holds a '/'")
        leaves[name] = leaf
    return leaves


def unflatten(leaves: dict[str, Any]) -> PyTree:
    """Nested dicts from '/'-joined paths: undoes `flatten` on trees of dicts.

    Raises:
      ValueError: if one path is both a leaf and the parent of another.
    """
    if list(leaves) == [""]:
        return leaves[""]
    parents = {path[: m.start()] for path in leaves for m in re.finditer("/", path)}
    if both := sorted(parents & leaves.keys()):
        raise ValueError(f"{both[0]!r} is a leaf and also holds other leaves")
    return traverse_util.unflatten_dict(leaves, sep="/")


def under(path: str, parents: Sequence[str]) -> bool:
    """Whether a path is one of these, or lies below one of them."""
    return any(path == p or path.startswith(f"{p}/") for p in parents)


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """`jax.tree.map` whose function takes the '/'-joined path first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(_path_name(path), *leaves), tree, *rest
    )


def mask(tree: PyTree, patterns: str | Sequence[str]) -> PyTree:
    """A tree of Python bools: True where any of the regexes is found in the path."""
    chosen = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return map_with_path(lambda path, _: any(re.search(p, path) for p in chosen), tree)


class Row(NamedTuple):
    """One leaf of a parameter table; statistics are None where not computed."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    bytes: int
    norm: float | None = None
    mean: float | None = None
    std: float | None = None


def rows(tree: PyTree, *, stats: bool = True) -> list[Row]:
    """Table rows of every array or ShapeDtypeStruct leaf, in the tree's order.

    Statistics are computed in float64 on the host, one leaf at a time, and only for
    concrete floating-point leaves; `stats=False` reads no values.
    """
    return [_row(path, leaf, stats) for path, leaf in flatten(tree).items()]


def _row(path: str, leaf: Any, stats: bool) -> Row:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    words = leaf  # a random key is made of some
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = jax.eval_shape(jax.random.key_data, leaf)
    size = words.size * words.dtype.itemsize
    row = Row(path, tuple(leaf.shape), str(leaf.dtype), int(leaf.size), int(size))
    concrete = isinstance(leaf, (np.ndarray, np.generic, jax.Array))
    floating = jax.numpy.issubdtype(leaf.dtype, np.floating)
    if not (stats and concrete and floating and row.size):
        return row
    values = np.asarray(leaf).astype(np.float64)
    norm, mean, std = np.linalg.norm(values), values.mean(), values.std()
    return row._replace(norm=float(norm), mean=float(mean), std=float(std))


def bytes_text(count: int) -> str:
    """1536 -> '1.5 KiB': binary units, three figures."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def table(listed: Sequence[Row]) -> str:
    """Rows as text: one line a leaf, then totals by dtype and in all."""
    kinds = sorted({row.dtype for row in listed})
    lines = [
        Row._fields,
        *(_cells(row, "x".join(map(str, row.shape))) for row in listed),
    ]
    for kind in kinds if len(kinds) == 1 else [*kinds, ""]:
        chosen = [row for row in listed if kind in ("", row.dtype)]
        norms = [row.norm for row in chosen if row.norm is not None]
        norm = np.linalg.norm(norms) if norms else None
        size, total = sum(r.size for r in chosen), sum(r.bytes for r in chosen)
        row = Row(f"total {kind}".strip(), (), kind, size, total, norm)
        lines.append(_cells(row, f"{len(chosen)} leaves"))
    shown = len(Row._fields) if any(r.norm is not None for r in listed) else 5
    text = aligned([line[:shown] for line in lines], left=3).split("\n")
    end = 2 + len(listed)  # below the names and their rule
    return "\n".join([*text[:end], text[1], *text[end:]])


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Cells as a text table, a rule below the first row; `left` columns are flush left.

    The others are flush right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def _cells(row: Row, shape: str) -> list[str]:
    statistics = ["" if v is None else f"{v:.4g}" for v in row[5:]]
    sizes = [f"{row.size:,}", bytes_text(row.bytes)]
    return [row.path, shape or "scalar", row.dtype, *sizes, *statistics]
