"""Pytrees by path: `image/blocks_0/attn/kernel` names one leaf everywhere."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

PyTree = Any
T = TypeVar("T")


def key_name(entry: Any) -> str:
    """The plain name of one key-path entry: dict key, attribute or index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def path_name(path: Sequence[Any]) -> str:
    """A `jax.tree_util` key path as one '/'-joined string; the root is ''."""
    return "/".join(key_name(entry) for entry in path)


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by '/'-joined path, in the tree's own order; None is no leaf.

    Raises:
      ValueError: if two leaves share a path (a key that itself holds a '/').
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = path_name(path)
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
    tree: dict[str, Any] = {}
    parents = {""}
    for path in leaves:
        parts = path.split("/")
        parents.update("/".join(parts[:i]) for i in range(1, len(parts)))
    for path, leaf in leaves.items():
        if path in parents:
            raise ValueError(f"{path!r} is a leaf and also holds other leaves")
        *above, last = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """`jax.tree.map` whose function takes the '/'-joined path first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
    )


def matches(pattern: str, path: str) -> bool:
    """True where the regex is found anywhere in the path; anchor with ^ and $."""
    return re.search(pattern, path) is not None


def mask(tree: PyTree, patterns: str | Sequence[str]) -> PyTree:
    """A tree of Python bools: True where any of the patterns is found in the path."""
    chosen = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return map_with_path(lambda path, _: any(matches(p, path) for p in chosen), tree)


@dataclass(frozen=True)
class Row:
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
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    shape, dtype = tuple(leaf.shape), leaf.dtype
    size = int(np.prod(shape, dtype=np.int64))
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return Row(path, shape, str(dtype), size, _key_bytes(leaf))
    row = Row(path, shape, str(dtype), size, size * dtype.itemsize)
    concrete = isinstance(leaf, (np.ndarray, np.generic, jax.Array))
    floating = jax.numpy.issubdtype(dtype, np.floating)
    if not (stats and concrete and floating and size):
        return row
    values = np.asarray(leaf).astype(np.float64)
    norm, mean, std = np.linalg.norm(values), values.mean(), values.std()
    return Row(*_fields(row), float(norm), float(mean), float(std))


def _fields(row: Row) -> tuple[Any, ...]:
    return row.path, row.shape, row.dtype, row.size, row.bytes


def _key_bytes(leaf: Any) -> int:
    data = jax.eval_shape(jax.random.key_data, leaf)
    return int(np.prod(data.shape)) * data.dtype.itemsize


def bytes_text(count: int) -> str:
    """1536 -> '1.5 KiB': binary units, three figures."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def table(tree_or_rows: PyTree | list[Row], *, stats: bool = True) -> str:
    """The parameter table as text: one line a leaf, then totals by dtype and in all."""
    given = tree_or_rows
    is_rows = isinstance(given, list) and all(isinstance(r, Row) for r in given)
    listed = given if is_rows else rows(given, stats=stats)
    header = ["path", "shape", "dtype", "size", "bytes", "norm", "mean", "std"]
    lines = [_cells(row) for row in listed]
    totals = [_total_cells(kind, listed) for kind in sorted({r.dtype for r in listed})]
    if len(totals) != 1:
        totals.append(_total_cells("", listed))
    shown = len(header) if any(r.norm is not None for r in listed) else 5
    grid = [line[:shown] for line in [header, *lines, *totals]]
    widths = [max(len(line[i]) for line in grid) for i in range(shown)]
    rule = "-" * (sum(widths) + 2 * (shown - 1))
    text = [_align(line, widths) for line in grid]
    end = 1 + len(lines)
    return "\n".join([text[0], rule, *text[1:end], rule, *text[end:]])


def _cells(row: Row) -> list[str]:
    shape = "x".join(map(str, row.shape)) or "scalar"
    numbers = ["" if v is None else f"{v:.4g}" for v in (row.norm, row.mean, row.std)]
    return [
        row.path,
        shape,
        row.dtype,
        f"{row.size:,}",
        bytes_text(row.bytes),
        *numbers,
    ]


def _total_cells(dtype: str, listed: list[Row]) -> list[str]:
    chosen = [r for r in listed if not dtype or r.dtype == dtype]
    norms = [r.norm for r in chosen if r.norm is not None]
    norm = f"{np.linalg.norm(norms):.4g}" if norms else ""
    size, total = sum(r.size for r in chosen), sum(r.bytes for r in chosen)
    name, count = f"total {dtype}".strip(), f"{len(chosen)} leaves"
    return [name, count, dtype, f"{size:,}", bytes_text(total), norm, "", ""]


def _align(cells: list[str], widths: list[int]) -> str:
    left = [c.ljust(w) for c, w in zip(cells[:3], widths[:3], strict=True)]
    right = [c.rjust(w) for c, w in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join(left + right).rstrip()
