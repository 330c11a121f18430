"""Arrays of a model by path, and what one asks of them.

    params = mmjax.load("runs/demo/clip").params
    params["text"].select("kernel$").norms()

Legend: k singular values, b bins.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmjax import schema, tree
from mmjax.errors import UserError
from mmjax.report import params as figures

_LINES = 20  # of a short table


class Params(Mapping[str, np.ndarray]):
    """Arrays by '/'-joined path: parameters, optimizer slots, gradients.

    `params[path]` is an array, or the Params below a branch. Printed, it is a table of
    its branches, as deep as 20 lines allow; `table()` has a line for every array.
    """

    def __init__(self, leaves: Mapping[str, np.ndarray]):
        """Takes arrays by path, in the order they are to be listed in."""
        self._leaves = dict(leaves)

    @classmethod
    def of(cls, variables: Any) -> "Params":
        """The arrays of a pytree, copied to the host."""
        flat = tree.flatten(variables)
        return cls({path: np.asarray(leaf) for path, leaf in flat.items()})

    def __getitem__(self, path: str) -> "np.ndarray | Params":
        if path in self._leaves:
            return self._leaves[path]
        below = {p: x for p, x in self._leaves.items() if p.startswith(f"{path}/")}
        if not below:
            raise KeyError(f"no array or branch {path!r}{_hint(path, self._leaves)}")
        return Params({p.removeprefix(f"{path}/"): x for p, x in below.items()})

    def __contains__(self, path: object) -> bool:
        return path in self._leaves

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def __repr__(self) -> str:
        norms, branches = self.norms(), self._branches()
        rows = [["path", "arrays", "numbers", "bytes", "rms"]]
        for name, paths in [*branches.items(), ("total", list(self))]:
            arrays = [self._leaves[path] for path in paths]
            size = sum(x.size for x in arrays)
            held = tree.bytes_text(sum(x.nbytes for x in arrays))
            counted = sum(self._leaves[path].size for path in paths if path in norms)
            square = sum(norms[path] ** 2 for path in paths if path in norms)
            rms = f"{(square / counted) ** 0.5:.3g}" if counted else ""
            rows.append([name, str(len(paths)), f"{size:,}", held, rms])
        return tree.aligned(rows, left=1)

    def _branches(self) -> dict[str, list[str]]:
        """Paths by the branch they lie in, at the largest depth of few branches."""
        deepest = max((path.count("/") + 1 for path in self), default=1)
        for depth in range(deepest, 0, -1):
            branches: dict[str, list[str]] = {}
            for path in self:
                name = "/".join(path.split("/")[:depth])
                branches.setdefault(name, []).append(path)
            if len(branches) <= _LINES:
                break
        return branches

    def table(self) -> str:
        """A line for every array: shape, dtype, size, norm, mean and std."""
        return tree.table(tree.rows(self._leaves))

    def select(self, pattern: str) -> "Params":
        """The arrays in whose path the regex is found.

        Raises:
          UserError: it is no regex, or found in no path.
        """
        try:
            found = {p: x for p, x in self._leaves.items() if re.search(pattern, p)}
        except re.error as error:
            raise UserError(f"{pattern!r} is no regex: {error}") from error
        if not found:
            hint = _hint(pattern, self._leaves)
            raise UserError(f"no path has {pattern!r} in it{hint}")
        return Params(found)

    def largest(self, count: int) -> "Params":
        """The arrays with the most numbers, the largest first."""
        ordered = sorted(self._leaves.items(), key=lambda item: -item[1].size)
        return Params(dict(ordered[:count]))

    def norms(self) -> dict[str, float]:
        """The L2 norm of every floating-point array, by path."""
        floats = self._floats().items()
        return {p: float(np.linalg.norm(x.astype(np.float64))) for p, x in floats}

    def histograms(self, bins: int = 50) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(counts (b,), edges (b + 1,)) of every floating-point array, by path."""
        floats = self._floats().items()
        return {p: np.histogram(x.astype(np.float32), bins) for p, x in floats}

    def singular_values(self) -> dict[str, np.ndarray]:
        """(k,) falling singular values of every matrix; kernels are (rest, out)."""
        return figures.singular_values(self._floats())

    def diff(self, other: "Mapping[str, np.ndarray]") -> "Diff":
        """How far these arrays are from another's, path by path.

        Raises:
          UserError: the other has no arrays by path.
        """
        if not isinstance(other, Mapping):
            kind = type(other).__name__
            raise UserError(
                f"diff takes parameters, and was given a {kind}: give its `.params`"
            )
        changes, shared = [], []
        for path, new in self._floats().items():
            old = other[path] if path in other else None
            if old is None or old.shape != new.shape:
                continue
            shared.append(path)
            changes.append(_change(path, *(x.astype(np.float64) for x in (new, old))))
        ours, theirs = (
            tuple(path for path in Params(x)._floats() if path not in shared)
            for x in (self, other)
        )
        return Diff(tuple(sorted(changes, key=_by_change)), ours, theirs)

    def plot_norms(self) -> Any:
        """A figure: the root mean square of every array."""
        return figures.plot_norms(self._drawn())

    def plot_histograms(self) -> Any:
        """A figure: a histogram of every array."""
        return figures.plot_histograms(self._drawn())

    def plot_singular_values(self) -> Any:
        """A figure: the singular values of every matrix over its largest."""
        return figures.plot_singular_values(self.singular_values())

    def _drawn(self) -> dict[str, np.ndarray]:
        if floats := self._floats():
            return floats
        raise UserError(f"none of {len(self)} arrays is of floats: nothing to draw")

    def _floats(self) -> dict[str, np.ndarray]:
        # bfloat16 is no np.floating
        kinds = {path: x.dtype for path, x in self._leaves.items()}
        floats = [p for p, d in kinds.items() if d.kind == "f" or "float" in d.name]
        return {p: self._leaves[p] for p in floats if self._leaves[p].size}


class Change(NamedTuple):
    """One array of two checkpoints.

    norm, other: L2 norms. relative: the norm of the difference over the other's.
    cosine: of the angle between both, as vectors.
    """

    path: str
    norm: float
    other: float
    relative: float
    cosine: float


@dataclasses.dataclass(frozen=True, repr=False)
class Diff:
    """How far two trees of arrays are apart.

    changes: of the arrays they share, the largest relative one first. only_ours,
    only_theirs: paths that one of them lacks, or has in another shape.
    """

    changes: tuple[Change, ...]
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]

    def __repr__(self) -> str:
        rows = [list(Change._fields)]
        for path, *values in self.changes[:_LINES]:
            rows.append([path, *(f"{value:.4g}" for value in values)])
        rest = len(self.changes) - _LINES
        notes = [f"and {rest} arrays that changed less"] if rest > 0 else []
        for side, paths in (("here", self.only_ours), ("there", self.only_theirs)):
            notes += [f"{len(paths)} only {side}: {paths[0]} ..."] if paths else []
        return "\n".join([tree.aligned(rows, left=1), *notes])


def _change(path: str, new: np.ndarray, old: np.ndarray) -> Change:
    norm, other = float(np.linalg.norm(new)), float(np.linalg.norm(old))
    distance = float(np.linalg.norm(new - old))
    relative = distance / other if other else float("inf") if distance else 0.0
    cosine = float(np.vdot(new, old)) / (norm * other) if norm and other else 0.0
    return Change(path, norm, other, relative, cosine)


def _by_change(change: Change) -> float:
    return -change.relative


def _hint(path: str, paths: Mapping[str, Any]) -> str:
    """The nearest of the branches, or of the paths."""
    heads = {"/".join(p.split("/")[:n]) for p in paths for n in range(1, 3)}
    return schema.suggest(path, heads if len(heads) <= _LINES else list(heads)[:_LINES])
