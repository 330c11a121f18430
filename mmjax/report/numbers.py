"""Numbers with their meaning: how a figure is spelled, and what it says."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

OTHER = "Other numbers"
SPACE = "\N{NO-BREAK SPACE}"
_UNITS = {"share": "%", "dB": "dB", "nats": "nats", "minutes": "min"}


@dataclasses.dataclass(frozen=True)
class Meaning:
    """group: of numbers that belong together. kind: share, number or a unit."""

    group: str
    label: str
    text: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A value of a JSON file with the ends of its 95 % interval, or None."""

    name: str
    meaning: Meaning
    value: Any
    low: float | None
    high: float | None


def by_name(name: str) -> Meaning:
    """What EVALUATOR/NUMBER says of itself: its evaluator and its name."""
    group, _, label = name.rpartition("/")
    return Meaning(group or OTHER, label.replace("_", " "), "", "number")


def figures(
    values: Mapping[str, Any], meaning: Callable[[str], Meaning] = by_name
) -> list[Figure]:
    """The values in their order, with NAME_lo and NAME_hi drawn into NAME.

    meaning: what a name stands for.
    """
    rows = []
    for name, value in values.items():
        base = name.removesuffix("_lo").removesuffix("_hi")
        if base == name or not _banded(values, base):
            banded = _banded(values, name)
            ends = (values[name + end] if banded else None for end in ("_lo", "_hi"))
            rows.append(Figure(name, meaning(name), value, *ends))
    return rows


def spell(value: Any, kind: str, *, unit: bool = True) -> str:
    """A number as a reader wants it: 0.766 as 76.6 %, where it is a share."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        return str(value)
    behind = SPACE + _UNITS[kind] if unit and kind in _UNITS else ""
    if kind == "share":
        return f"{100 * value:.1f}{behind}"
    if isinstance(value, int):
        return f"{value:,}{behind}"
    digits = {"dB": ".1f", "minutes": ".1f", "nats": ".2f"}.get(kind, ".4g")
    return f"{value:{digits}}{behind}"


def _banded(values: Mapping[str, Any], name: str) -> bool:
    """Whether a name is there with both ends of an interval, all of them numbers."""
    keys = (name, f"{name}_lo", f"{name}_hi")
    return all(isinstance(values.get(key), (int, float)) for key in keys)
