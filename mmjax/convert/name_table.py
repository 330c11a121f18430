"""Strict name tables: a source's keys and our paths, in both directions.

    TABLE = Table(
        Rule("transformer.resblocks.{i}.ln_1.weight",
             "params/text/transformer/block_{i}/norm_1/scale"),
        Rule(["q.{i}.weight", "k.{i}.weight", "v.{i}.weight"],
             "params/block_{i}/qkv/kernel", joined(3, DENSE)),
        skip=("*.position_ids",),
    )
    ours = TABLE.load(tensors, where="model.safetensors")
    tensors = TABLE.save(ours)

`{i}` stands for a number, the same on both sides; `{i+1}` stands for that number plus
one. A key that no rule knows, a missing part and two keys for one path are errors. Our
paths begin with the collection: `params/...`, `batch_stats/...`.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmjax.convert.transforms import SAME, Form
from mmjax.errors import UserError

Arrays = dict[str, np.ndarray]
SHOWN = 5  # names that a message lists
_SLOT = re.compile(r"\{(\w+)(?:\+(\d+))?\}")


class UnknownLayout(UserError):
    """Keys that no rule knows, or rules whose keys are missing."""


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class _Pattern:
    """A name with number slots: recognises names and writes them."""

    def __init__(self, text: str):
        self.text, regex, at = text, "", 0
        self._shift: dict[str, int] = {}
        for slot in _SLOT.finditer(text):
            name, shift = slot[1], int(slot[2] or 0)
            regex += re.escape(text[at : slot.start()])
            regex += rf"(?P<{name}>\d+)" if name not in self._shift else f"(?P={name})"
            self._shift[name], at = shift, slot.end()
        self._regex = re.compile(regex + re.escape(text[at:]))

    def read(self, name: str) -> dict[str, int] | None:
        """The numbers in `name`, or None where it is another name."""
        hit = self._regex.fullmatch(name)
        return hit and {k: int(v) - self._shift[k] for k, v in hit.groupdict().items()}

    def write(self, numbers: Mapping[str, int]) -> str:
        return _SLOT.sub(lambda s: str(numbers[s[1]] + int(s[2] or 0)), self.text)


class Rule:
    """Source keys (one, or the parts of one array), our path, and the form between."""

    def __init__(self, theirs: str | Sequence[str], ours: str, form: Form = SAME):
        self.names = (theirs,) if isinstance(theirs, str) else tuple(theirs)
        self.theirs = [_Pattern(name) for name in self.names]
        self.ours, self.form = _Pattern(ours), form

    def below(self, theirs: str, ours: str) -> "Rule":
        """The rule of a model that is a part of another: what leads its names."""
        return Rule([theirs + n for n in self.names], ours + self.ours.text, self.form)

    def load(self, path: str, tensors: Mapping[int, tuple[str, np.ndarray]]):
        """Our array of the parts by number, each (key, array).

        Raises:
          ValueError, TypeError: a part is missing or has a shape that does not fit.
        """
        missing = [name for i, name in enumerate(self.names) if i not in tensors]
        if missing:
            raise ValueError(f"{path} lacks {listed(missing)}")
        parts = [tensors[i] for i in range(len(tensors))]
        try:
            return self.form.load([array for _, array in parts])
        except (ValueError, TypeError) as e:
            shapes = ", ".join(f"{key} {array.shape}" for key, array in parts)
            raise ValueError(f"{shapes} cannot be {path}: {e}") from e


class Table:
    """Rules, and the source keys that carry nothing (`skip`, shell patterns)."""

    def __init__(self, *rules: Rule, skip: Sequence[str] = ()):
        names = [name for rule in rules for name in rule.names]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rules for {listed(twice)}: the second is never used")
        self.rules, self.skip = rules, tuple(skip)

    def skips(self, key: str) -> bool:
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.skip)

    def _place(self, key: str) -> tuple[Rule, int, str] | None:
        """The rule of a key, the number of the part that it is, and our path."""
        for rule in self.rules:
            for part, pattern in enumerate(rule.theirs):
                numbers = pattern.read(key)
                if numbers is not None:
                    return rule, part, rule.ours.write(numbers)
        return None

    def unknown(self, keys: Iterable[str]) -> list[str]:
        """The keys that the table has no place for."""
        return [k for k in keys if not self.skips(k) and self._place(k) is None]

    def load(self, tensors: Mapping[str, np.ndarray], where: str) -> Arrays:
        """Our arrays by path, from a source's by key.

        Raises:
          UnknownLayout: keys that no rule knows, missing parts, a path given twice, or
            a shape that a form cannot take. `where` begins the message.
        """
        unknown = self.unknown(tensors)
        if unknown:
            raise UnknownLayout(f"{where}: no rule for {listed(unknown)}")
        rules: dict[str, Rule] = {}
        parts: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
        for key, value in tensors.items():
            if self.skips(key):
                continue
            rule, part, path = self._place(key)
            own = parts.setdefault(path, {})
            if part in own:
                raise UnknownLayout(
                    f"{where}: {own[part][0]} and {key} are both {path}"
                )
            own[part], rules[path] = (key, value), rule
        try:
            return {path: rules[path].load(path, own) for path, own in parts.items()}
        except ValueError as e:
            raise UnknownLayout(f"{where}: {e}") from e

    def save(self, ours: Mapping[str, np.ndarray], where: str = "this model") -> Arrays:
        """A source's arrays by key, from ours by path; undoes `load`.

        Raises:
          UnknownLayout: paths that no rule knows.
        """
        tensors, unknown = {}, []
        for path, value in ours.items():
            for rule in self.rules:
                numbers = rule.ours.read(path)
                if numbers is not None:
                    names = [pattern.write(numbers) for pattern in rule.theirs]
                    tensors |= zip(names, rule.form.save(value), strict=True)
                    break
            else:
                unknown.append(path)
        if unknown:
            raise UnknownLayout(
                f"{where} does not fit the layout, which has no place for "
                f"{listed(unknown)}"
            )
        return tensors


def finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """UserError, with the names, where an array holds NaN or Inf."""
    bad = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if bad:
        raise UserError(
            f"{where}: {len(bad)} of {len(arrays)} arrays hold NaN or Inf: "
            f"{listed(bad)}; the weights are broken: take those of an earlier step"
        )


def fit(
    ours: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], where: str
) -> None:
    """UnknownLayout unless `ours` has the names and shapes that the model has."""
    missing, extra = shapes.keys() - ours.keys(), ours.keys() - shapes.keys()
    if missing:
        raise UnknownLayout(f"{where}: nothing for {listed(missing)}")
    if extra:
        raise UnknownLayout(f"{where}: the model has no {listed(extra)}")
    for path, value in ours.items():
        if tuple(value.shape) != tuple(shapes[path]):
            raise UnknownLayout(
                f"{where}: {path} is {tuple(value.shape)}, and {tuple(shapes[path])} "
                "by the config beside it: they are of two models"
            )


def stacked(ours: Mapping[str, np.ndarray]) -> Arrays:
    """Blocks of unrolled transformers as those of scanned ones.

    All but the last of each run of `block_0`, `block_1`, ... become one array with the
    blocks first. The blocks of a prior, which lie in `params` itself, all do.
    """
    runs: dict[tuple[str, str], dict[int, str]] = {}
    for path in ours:
        hit = re.fullmatch(r"(params|.*transformer)/block_(\d+)/(.*)", path)
        if hit:
            runs.setdefault((hit[1], hit[3]), {})[int(hit[2])] = path
    arrays = dict(ours)
    for (place, leaf), paths in runs.items():
        count = len(paths) if place == "params" else len(paths) - 1
        blocks = [arrays.pop(paths[i]) for i in range(count)]
        if blocks:
            arrays[f"{place}/blocks/{leaf}"] = np.stack(blocks)
    return arrays


def unstacked(ours: Mapping[str, np.ndarray]) -> Arrays:
    """Undoes `stacked`; unrolled arrays come back as they are."""
    arrays: Arrays = {}
    for path, value in ours.items():
        place, inside, leaf = path.partition("/blocks/")
        blocks = enumerate(value) if inside else ()
        arrays |= {f"{place}/block_{i}/{leaf}": block for i, block in blocks}
        if not inside:
            arrays[path] = value
    return arrays
