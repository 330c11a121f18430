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

`{i}` stands for a number, the same on both sides; `{i+1}` for that number plus one. A
key that no rule knows, a part that is missing and two keys for one path are errors.
Our paths begin with the collection: `params/...`, `batch_stats/...`.
"""

import dataclasses
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

    def __init__(self, message: str, keys: Sequence[str] = ()):
        super().__init__(message)
        self.keys = tuple(keys)


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many there are."""
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class _Pattern:
    """A name with number slots: recognises names and makes them."""

    def __init__(self, text: str):
        self._text, regex, at = text, "", 0
        self._shift: dict[str, int] = {}
        for slot in _SLOT.finditer(text):
            name, shift = slot[1], int(slot[2] or 0)
            regex += re.escape(text[at : slot.start()])
            regex += rf"(?P<{name}>\d+)" if name not in self._shift else f"(?P={name})"
            self._shift[name], at = shift, slot.end()
        self._regex = re.compile(regex + re.escape(text[at:]))

    def read(self, name: str) -> dict[str, int] | None:
        """The numbers in `name`, or None where it is another name."""
        found = self._regex.fullmatch(name)
        if found is None:
            return None
        return {k: int(v) - self._shift[k] for k, v in found.groupdict().items()}

    def write(self, numbers: Mapping[str, int]) -> str:
        return _SLOT.sub(lambda s: str(numbers[s[1]] + int(s[2] or 0)), self._text)


class Rule:
    """Source keys (one, or the parts of one array), our path, and the form between."""

    def __init__(self, theirs: str | Sequence[str], ours: str, form: Form = SAME):
        self.names = (theirs,) if isinstance(theirs, str) else tuple(theirs)
        self.theirs = [_Pattern(name) for name in self.names]
        self.ours_text, self.ours, self.form = ours, _Pattern(ours), form


@dataclasses.dataclass(frozen=True)
class _Hit:
    rule: Rule
    part: int
    numbers: dict[str, int]

    @property
    def path(self) -> str:
        return self.rule.ours.write(self.numbers)


class Table:
    """Rules and the source keys that carry nothing (`skip`, shell patterns)."""

    def __init__(self, *rules: Rule, skip: Sequence[str] = ()):
        names = [name for rule in rules for name in rule.names]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rules for {listed(twice)}: the second is never used")
        self.rules, self.skip = rules, tuple(skip)

    def skips(self, key: str) -> bool:
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.skip)

    def _find(self, key: str) -> _Hit | None:
        for rule in self.rules:
            for part, pattern in enumerate(rule.theirs):
                numbers = pattern.read(key)
                if numbers is not None:
                    return _Hit(rule, part, numbers)
        return None

    def known(self, keys: Iterable[str]) -> int:
        """How many of `keys` it has a place for."""
        return sum(self.skips(key) or self._find(key) is not None for key in keys)

    def load(self, tensors: Mapping[str, np.ndarray], where: str) -> Arrays:
        """Our arrays by path, from a source's by key.

        Raises:
          UnknownLayout: keys that no rule knows, parts missing, a path given twice, or
            a shape that a form cannot take. `where` begins the message.
        """
        parts: dict[str, dict[int, str]] = {}
        forms: dict[str, Rule] = {}
        unknown = []
        for key in tensors:
            hit = self._find(key)
            if hit is None:
                unknown += [] if self.skips(key) else [key]
                continue
            there = parts.setdefault(hit.path, {})
            if hit.part in there:
                raise UnknownLayout(
                    f"{where}: {there[hit.part]} and {key} are both {hit.path}"
                )
            there[hit.part], forms[hit.path] = key, hit.rule
        if unknown:
            raise UnknownLayout(f"{where}: no rule for {listed(unknown)}", unknown)
        return {
            path: self._loaded(where, path, forms[path], there, tensors)
            for path, there in parts.items()
        }

    @staticmethod
    def _loaded(
        where: str,
        path: str,
        rule: Rule,
        there: Mapping[int, str],
        tensors: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        if len(there) < len(rule.names):
            missing = [n for i, n in enumerate(rule.names) if i not in there]
            raise UnknownLayout(f"{where}: {path} lacks {listed(missing)}", missing)
        keys = [there[i] for i in range(len(there))]
        try:
            return rule.form.load([tensors[key] for key in keys])
        except (ValueError, TypeError) as e:
            shapes = ", ".join(f"{k} {tensors[k].shape}" for k in keys)
            raise UnknownLayout(f"{where}: {shapes} cannot be {path}: {e}") from e

    def save(self, ours: Mapping[str, np.ndarray], where: str = "this model") -> Arrays:
        """A source's arrays by key, from ours by path; undoes `load`.

        Raises:
          UnknownLayout: paths that no rule knows.
        """
        found, unknown = {}, []
        for path, value in ours.items():
            for rule in self.rules:
                numbers = rule.ours.read(path)
                if numbers is not None:
                    names = [pattern.write(numbers) for pattern in rule.theirs]
                    found |= zip(names, rule.form.save(value), strict=True)
                    break
            else:
                unknown.append(path)
        if unknown:
            raise UnknownLayout(
                f"{where} does not fit the layout, which has no place for "
                f"{listed(unknown)}",
                unknown,
            )
        return found


def fit(
    ours: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], where: str
) -> None:
    """UnknownLayout unless `ours` has the names and shapes that the model has."""
    missing = shapes.keys() - ours.keys()
    if missing:
        raise UnknownLayout(f"{where}: nothing for {listed(missing)}", sorted(missing))
    extra = ours.keys() - shapes.keys()
    if extra:
        raise UnknownLayout(f"{where}: the model has no {listed(extra)}", sorted(extra))
    for path, value in ours.items():
        if tuple(value.shape) != tuple(shapes[path]):
            raise UnknownLayout(
                f"{where}: {path} is {tuple(value.shape)}, and {tuple(shapes[path])} "
                "by the config beside it: they are of two models"
            )


def stacked(ours: Mapping[str, np.ndarray]) -> Arrays:
    """Blocks of unrolled transformers as those of scanned ones.

    By path: all but the last of each run of
    `block_0`, `block_1`, ... become one array with the blocks first. A prior's, which
    lie in `params` itself, all do.
    """
    runs: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    found: Arrays = {}
    for path, value in ours.items():
        hit = re.fullmatch(r"(params|.*transformer)/block_(\d+)/(.*)", path)
        if hit is None:
            found[path] = value
        else:
            runs.setdefault((hit[1], hit[3]), {})[int(hit[2])] = value
    for (place, leaf), blocks in runs.items():
        count = len(blocks)
        if place != "params":
            count -= 1
            found[f"{place}/block_{count}/{leaf}"] = blocks[count]
        if count:
            stack = np.stack([blocks[i] for i in range(count)])
            found[f"{place}/blocks/{leaf}"] = stack
    return found


def unstacked(ours: Mapping[str, np.ndarray]) -> Arrays:
    """Undoes `stacked`; unrolled arrays come back as they are."""
    found: Arrays = {}
    for path, value in ours.items():
        place, inside, leaf = path.partition("/blocks/")
        if not inside:
            found[path] = value
            continue
        for i, block in enumerate(value):
            found[f"{place}/block_{i}/{leaf}"] = block
    return found
