"""Fields: the named parts of a batch, each made of one value of a record.

    fields = build({"image": {"kind": "image"}, "tokens": {"kind": "text"}})
    fields = open_fields(fields, lambda: source, {})  # a tokenizer is trained
    batch = encode(fields, "tokens", ["a red star"])

The kind is a module here, found by its name, with a dataclass `Field`; a new kind is a
new file and nothing else. A field called NAME gives the arrays NAME, NAME_mask and so
on; one that is optional also gives NAME_present.

What a task or an evaluator reads is written as names: `image` is needed, `label?` is
taken where the records have it, `image|image_tokens` is the first of them that they
have.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.data import records
from mmjax.data.fields.base import Arrays, Field, View, place
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError

__path__ = pkgutil.extend_path(__path__, __name__)  # other distributions may hold kinds
Fields = dict[str, Field]
_INNER = ("base", "numbers")  # parts of fields, not kinds
_LOOKED_AT = 8  # records of a source that say what its records have


def kinds() -> list[str]:
    """The names of all kinds."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in _INNER and name[0] != "_")


def kind(name: str, where: str) -> type[Field]:
    """The dataclass of a kind; UserError with the nearest name where there is none."""
    if name not in kinds():
        raise UserError(f"{where}: no kind {name!r}{schema.suggest(name, kinds())}")
    return importlib.import_module(f"{__name__}.{name}").Field


def build(config: Mapping[str, Any]) -> Fields:
    """The fields of `config.data.fields`, in the order of their names.

    Raises:
      UserError: an unknown kind or option, or two fields that give one array.
    """
    fields: Fields = {}
    keys: dict[str, str] = {}
    for name in sorted(config):
        options, where = dict(config[name].items()), place(name)
        if not name.isidentifier():
            raise UserError(f"{where}: a field's name is letters, digits and _")
        if "kind" not in options:
            raise UserError(f"{where} has no kind: use one of {', '.join(kinds())}")
        cls = kind(str(options.pop("kind")), where)
        fields[name] = schema.from_mapping(cls, options, where)
        for key in shapes({name: fields[name]}):
            if key in keys:
                raise UserError(f"{where} and {place(keys[key])} both give {key!r}")
            keys[key] = name
    return fields


def open_fields(
    fields: Fields, source: Callable[[], Source], saved: Mapping[str, Any]
) -> Fields:
    """The fields with all that they take from the data, or from a checkpoint.

    Args:
      source: opens the training records; called only where a field needs to look.
      saved: what `save` gave.
    """
    opened = {}
    for name, field in fields.items():
        if name in saved:
            field = field.restored(saved[name])
        elif type(field).open is not Field.open:
            field = field.open(name, source())
        opened[name] = field
    return opened


def save(fields: Fields) -> dict[str, Any]:
    """What of the fields travels with a checkpoint, as JSON."""
    saved = {name: field.saved() for name, field in fields.items()}
    return {name: value for name, value in saved.items() if value is not None}


def spec(fields: Fields) -> dict[str, dict[str, Any]]:
    """What `Task.check` sees of each field: kind, shape, dtype, its kind's facts."""
    out = {}
    for name, field in fields.items():
        shape, dtype = field.shapes(name)[name]
        named = {"kind": type(field).__module__.rpartition(".")[2]}
        out[name] = {**named, "shape": shape, "dtype": dtype, **field.facts(name)}
    return out


def only(fields: Fields, kind_name: str) -> Field | None:
    """The one field of a kind, or None; of several, the first in order of names."""
    cls = kind(kind_name, "fields")
    return next((field for field in fields.values() if type(field) is cls), None)


def shapes(fields: Fields) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays of a row of all fields: key -> (shape, dtype)."""
    out = {}
    for name, field in fields.items():
        out |= field.shapes(name)
        if field.optional:
            out[f"{name}_present"] = ((), "bool")
    return out


def choose(fields: Fields, source: Source | None, reads: Iterable[str]) -> Fields:
    """The fields that `reads` names and the source's records have, in order of names.

    Without a source, by the config alone: of `a|b` the first there is.

    Raises:
      UserError: the config has no field of a name, or records lack one that is needed
        and not optional. The message lists what they have.
    """
    record = None if source is None else records.next_good(source, 0)[0]
    chosen: Fields = {}
    for name in reads:
        options = name.removesuffix("?").split("|")
        known = {option: fields[option] for option in options if option in fields}
        usable = [
            o
            for o, f in known.items()
            if record is None or f.value(o, record) is not None
        ]
        usable += [o for o, f in known.items() if f.optional]
        if usable:
            chosen[usable[0]] = fields[usable[0]]
        elif name.endswith("?"):
            continue
        elif not known:
            raise UserError(
                f"config.data.fields has no {' or '.join(options)}, which is read: add "
                f"it, {place(options[0])} = dict(kind=...); there are: "
                f"{', '.join(fields) or 'none'}"
            )
        else:
            wanted = " or ".join(f"{o} (of {f.reads(o)!r})" for o, f in known.items())
            hint = ""
            if any(f.reads(o) == "text" for o, f in known.items()):
                hint = (
                    ": name the captions' field with text=, or make captions of class "
                    "names with template=, such as template=a photo of a {}."
                )
            has = f"records of {source.name} have {_values(record)}"
            raise UserError(f"{has}, and no {wanted}{hint}")
    return dict(sorted(chosen.items()))


def _values(record: Record) -> str:
    """The names of a record's values, but for those that are empty lists."""
    given = (k for k, v in record.items() if not isinstance(v, list | tuple) or v)
    return ", ".join(given)


def check(chosen: Fields, fields: Fields, source: Source) -> None:
    """Raises UserError where training could not begin.

    Args:
      chosen: the fields of a batch. Some of the source's first records must fit each.
      fields: all fields of the config.
    """
    for name, field in chosen.items():
        field.check(name, fields, source)
        together = chosen if field.AFTER else {name: field}
        failure: BrokenRecord | None = None
        for i in range(min(len(source), _LOOKED_AT)):
            try:
                row(together, source[i], None, View(train=False, index=i))
                break
            except BrokenRecord as error:
                failure = failure or error
        else:
            raise UserError(f"{source.name}: {failure}")


def row(fields: Fields, record: Record, rng: Any, view: View) -> dict[str, Any]:
    """A record as a row: NAME -> what its `collate` takes, and NAME_present.

    Raises:
      BrokenRecord: the record lacks a value, or one does not fit its field.
    """
    out: dict[str, Any] = {}
    for name in sorted(fields, key=lambda name: fields[name].AFTER):
        field = fields[name]
        present = field.value(name, record) is not None
        if not present and not field.optional:
            reason = f"it has no {field.reads(name)!r} for {place(name)}, only "
            at = f"record {record.get('key', view.index)}"
            raise BrokenRecord(at, reason + _values(record))
        if view.train and field.drop and rng.random() < field.drop:
            present = False
        if present:
            out[name] = field.row(name, record, rng, view)
        else:
            view.absent.add(name)
            out[name] = field.blank(name)
        if field.optional:
            out[f"{name}_present"] = present
    return out


def blank(fields: Fields) -> dict[str, Any]:
    """The row of a record that has none of the fields."""
    out = {name: field.blank(name) for name, field in fields.items()}
    return out | {f"{name}_present": False for name in fields if fields[name].optional}


def collate(fields: Fields, rows: Sequence[Mapping[str, Any]]) -> Arrays:
    """Rows as the arrays of a batch."""
    out: Arrays = {}
    for name, field in fields.items():
        out |= field.collate(name, [row[name] for row in rows])
        if field.optional:
            out[f"{name}_present"] = np.array([row[f"{name}_present"] for row in rows])
    return out


def encode(fields: Fields, name: str, values: Sequence[Any]) -> Arrays:
    """Values that are no record's, such as prompts, as arrays of field `name`.

    The evaluation view. Raises UserError where a value does not fit the field.
    """
    field, view = fields[name], View(train=False)
    try:
        cells = [field.row(name, {field.reads(name): v}, None, view) for v in values]
    except BrokenRecord as error:
        raise UserError(error.reason) from error
    return field.collate(name, cells)
