"""Mappings become typed dataclasses here: the border where a config dies."""

import ast
import contextlib
import dataclasses
import difflib
import importlib
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from mmjax import errors
from mmjax.errors import UserError

T = TypeVar("T")
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


@dataclasses.dataclass(frozen=True)
class Plugin:
    """The class of a section is the one that its own key names.

    `Annotated[dict[str, Any], Plugin("mmjax.tasks", "name", "Task")]`: the section's
    keys are the fields of mmjax.tasks.NAME.Task, and `name`. Where `outside` says so, a
    name with a dot is a module's own; elsewhere it is none.
    """

    package: str
    key: str
    attribute: str
    outside: bool = False

    def find(self, section: Mapping[str, Any]) -> type | None:
        """The class, or None: whoever builds the section says what is wrong."""
        name = str(section[self.key]) if self.key in section else ""
        if "." in name and not self.outside:
            return None
        place = name if "." in name else f"{self.package}.{name}"
        try:
            return getattr(importlib.import_module(place), self.attribute, None)
        except ModuleNotFoundError:
            return None


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text; ValueError for anything else, however deep.

    So is a key that comes twice: which of its values is meant nobody can know.
    """
    try:
        return json.loads(data, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deep to be read") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return found


def read_json(path: Any, *, fix: str = "put back a copy of it") -> dict[str, Any]:
    """The mapping that a JSON file holds; UserError for whatever else it is.

    path: a pathlib.Path, or what reads like one.
    """
    # A pipe or a device may never end.
    if os.path.exists(path) and (reason := errors.plain(path)):
        raise UserError(f"cannot read {path}: {reason}: {fix}")
    try:
        held = parse_json(path.read_bytes())  # bytes that are no text: a ValueError
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {fix}") from None
    if not isinstance(held, dict):
        raise UserError(f"{path} is damaged (it holds {_show(held)}): {fix}")
    return held


def from_mapping(cls: type[T], mapping: Any, where: str = "config") -> T:
    """Builds the dataclass `cls` from a mapping, checking every name and type.

    Args:
      cls: a dataclass; its fields' annotations may be int, float, bool, str, None,
        Any, Literal, unions, tuples, lists, mappings and other dataclasses.
      mapping: a Mapping or ConfigDict; an instance of `cls` comes back as it is.
      where: the dotted place that error messages start with, `config.optim`.

    Integers are promoted to float where a float is asked, lists become tuples and
    mappings become nested dataclasses. Defaults live in the dataclass.

    Raises:
      UserError: unknown key (names the nearest legal one), missing key, wrong type,
        or what the dataclass's own `__post_init__` raises.
    """
    if isinstance(mapping, cls):
        return mapping
    if not _is_mapping(mapping):
        raise UserError(f"{where}: expected keys and values, got {_show(mapping)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    values = {}
    for key in mapping:
        if key not in fields:
            raise UserError(f"{where}: unknown key {key!r}{suggest(key, fields)}")
        values[key] = convert(mapping[key], hints[key], f"{where}.{key}")
    for name, field in fields.items():
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if name not in values and no_default:
            kind = _name(hints[name])
            raise UserError(f"{where}: {name!r} is missing; give it as {kind}")
    try:
        return cls(**values)
    except (ValueError, UserError) as error:
        said = str(error).startswith(where)  # by a part of the dataclass
        raise UserError(str(error) if said else f"{where}: {error}") from error


def suggest(key: object, legal: Iterable[str]) -> str:
    """`; did you mean 'x'? (legal: ...)`, the tail of an unknown-name message."""
    names = sorted(map(str, legal))
    if not names:
        return "; no keys are accepted here"
    near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} (legal: {', '.join(names)})"


def at_least(low: float, values: object, *names: str) -> None:
    """ValueError for a numeric attribute of `values` below `low`; for __post_init__.

    Neither infinity nor NaN is at least anything.
    """
    for name in names:
        if not low <= getattr(values, name) < math.inf:
            raise ValueError(f"{name} is {getattr(values, name)}: use {low} or more")


def under(high: float, values: object, *names: str) -> None:
    """ValueError for an attribute that is `high` or more; `at_least` for the others."""
    for name in names:
        if not getattr(values, name) < high:
            raise ValueError(f"{name} is {getattr(values, name)}: use less than {high}")


def convert(value: Any, kind: Any, where: str) -> Any:
    """Checks `value` against the annotation `kind`; see `from_mapping`."""
    args = typing.get_args(kind)
    outer = typing.get_origin(kind) or kind
    if kind is Any or kind is object:
        return value
    if is_union(kind):
        return _convert_union(value, kind, where)
    if outer is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        legal = ", ".join(map(repr, args))
        raise UserError(f"{where}: {value!r} is not one of {legal}")
    if dataclasses.is_dataclass(kind):
        return from_mapping(kind, value, where)
    if _subclass(outer, Mapping) and _is_mapping(value):
        key_kind, value_kind = args or (Any, Any)
        return {
            convert(k, key_kind, f"{where} key"): convert(
                value[k], value_kind, f"{where}.{k}"
            )
            for k in value
        }
    if outer in (tuple, list, *_SEQUENCES) and isinstance(value, (list, tuple)):
        if outer is not tuple or not args or args[-1] is Ellipsis:
            args = (args[0] if args else Any,) * len(value)
        if len(value) != len(args):
            count = f"{len(args)} values ({_name(kind)})"
            raise UserError(f"{where}: expected {count}, got {_show(value)}")
        pairs = enumerate(zip(value, args, strict=True))
        items = [convert(v, arg, f"{where}[{i}]") for i, (v, arg) in pairs]
        return items if outer is list else tuple(items)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        if isinstance(value, number) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # a whole number above all floats
                return kind(value)
    elif isinstance(value, outer) if isinstance(outer, type) else callable(value):
        return value
    raise _mismatch(value, kind, where)


def plugin(kind: Any) -> Plugin | None:
    """The Plugin of an annotation that has one."""
    marks = getattr(kind, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Plugin)), None)


def keys(kind: Any, section: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The annotations of a section's keys: (by key, that of any other key or None).

    Args:
      kind: the section's own annotation: a dataclass, a mapping, a Plugin or a union
        with one of them. All else has no keys.
      section: what is known of it, which a Plugin looks at.
    """
    named = plugin(kind)
    if named is not None:
        return {named.key: str, **keys(named.find(section), section)[0]}, None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}, None
    args = typing.get_args(kind)
    if is_union(kind):
        options = (keys(option, section) for option in args)
        return next((o for o in options if o != ({}, None)), ({}, None))
    if _subclass(typing.get_origin(kind) or kind, Mapping):
        return {}, args[1] if args else Any
    return {}, None


def parse(text: str, kind: Any, where: str, *, old: Any = None) -> Any:
    """The value that a command line's text is, as the annotation `kind` asks.

    All but strings is written as in Python; a tuple of one needs no brackets.

    Raises:
      UserError: none of them is of this kind; `old`, if there is one, is the example.
    """
    if kind is bool and text.lower() in _TRUE + _FALSE:
        return text.lower() in _TRUE
    value = _literal(text)
    for option in (value, text, (value,)):
        with contextlib.suppress(UserError):
            return convert(option, kind, where)
    example = "" if old is None else f" (such as {old!r})"
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {text} is no finite number{example}")
    given = f"{text!r} ({type(value).__name__})"
    raise UserError(f"{where}: expected {_name(kind)}{example}, got {given}")


# What ast.literal_eval raises of texts: the last two of such that are nested deep.
NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def _literal(text: str) -> Any:
    for read in (ast.literal_eval, float):
        with contextlib.suppress(*NO_LITERAL):
            value = tuples(read(text))
            return text if isinstance(value, str) else value  # quotes are a string's
    return text


def tuples(value: Any) -> Any:
    """`value` with tuples for all lists in it."""
    if isinstance(value, Mapping):
        return {k: tuples(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(tuples(v) for v in value)
    return value


def lists(value: Any) -> Any:
    """`value` with lists for all tuples in it, as JSON gives it back."""
    if isinstance(value, Mapping):
        return {k: lists(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [lists(v) for v in value]
    return value


def is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _convert_union(value: Any, kind: Any, where: str) -> Any:
    options = typing.get_args(kind)
    for option in options:  # an exact match first: 3 stays an int in `float | int`
        if isinstance(option, type) and type(value) is option:
            return value
    structured = [o for o in options if dataclasses.is_dataclass(o)]
    if _is_mapping(value) and len(structured) == 1:
        return from_mapping(structured[0], value, where)
    for option in options:
        try:
            return convert(value, option, where)
        except UserError:
            continue
    raise _mismatch(value, kind, where)


def _mismatch(value: Any, kind: Any, where: str) -> UserError:
    return UserError(f"{where}: expected {_name(kind)}, got {_show(value)}")


_SEQUENCES = (Sequence, Iterable)


def _subclass(outer: Any, base: type) -> bool:
    return isinstance(outer, type) and issubclass(outer, base)


def _is_mapping(value: Any) -> bool:
    # ml_collections' ConfigDict is not a Mapping but reads as one
    return isinstance(value, Mapping) or (
        hasattr(value, "keys") and hasattr(value, "__getitem__")
    )


def _name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    if isinstance(kind, type) and not typing.get_args(kind):
        return kind.__name__
    return str(kind).replace("typing.", "").replace("collections.abc.", "")


def _show(value: Any) -> str:
    text = repr(value)
    short = text if len(text) <= 60 else text[:57] + "..."
    return f"{short} ({type(value).__name__})"
