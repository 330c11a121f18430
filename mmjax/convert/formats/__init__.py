"""Public formats, one module each; a new one is a new file here and nothing else.

`Format` says what a module has. Besides, ADVICE is a sentence that says what to do
where all keys have a place and no config is there; and a module whose original can be
built from what `from_mmjax` wrote has, for `--check`,
    reference(folder, batch) -> dict of arrays by the names of our predict functions
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from mmjax import schema
from mmjax.convert.name_table import Table, UnknownLayout, finite, listed
from mmjax.convert.read import Source
from mmjax.data.tokenizers.base import Tokenizer
from mmjax.errors import UserError

__path__ = pkgutil.extend_path(__path__, __name__)

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of ours, on its way in or out.

    task, image: `config.task` and `config.data.fields.image`. tokenizer: None where
    there is no text. arrays: by path, unrolled, `params/...`, `frozen/...` and the
    extra collections (`batch_stats/...`). kept: what the format carries and ours does
    not, so that it can be written again.
    """

    task: Mapping[str, Any]
    image: Mapping[str, Any]
    tokenizer: Tokenizer | None
    arrays: Arrays
    kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Export:
    """Files to write. tensors: file name -> arrays by key (safetensors, or torch's
    format where the name says so). texts: file name -> content. notes: what the format
    has no place for, one sentence each."""

    tensors: Mapping[str, Arrays]
    texts: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """What a module of this package offers."""

    ABOUT: str  # a line for the list of formats
    TASK: str  # the name of our task that its models are

    TABLE: Table  # or, where it depends on the keys, a function `table(keys)`

    def detect(self, source: Source) -> bool: ...  # whether a source is of this format
    def to_mmjax(self, source: Source) -> Model: ...
    def from_mmjax(self, model: Model) -> Export: ...


def names() -> list[str]:
    """The formats there are. Modules that begin with `_` are parts of others."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in modules if not name.startswith("_"))


def find(name: str) -> Format:
    """The format called `name`; UserError with the nearest name if there is none."""
    if name not in names():
        raise UserError(f"no format {name!r}{schema.suggest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")


def table(name: str, keys: Iterable[str]) -> Table:
    """The name table of a format for a state dict of these keys."""
    module = find(name)
    return module.table(keys) if hasattr(module, "table") else module.TABLE


def detect(source: Source) -> str:
    """The name of a source's format.

    Raises:
      UnknownLayout: none knows it; the message has the closest one and the first keys
        that it has no place for.
    """
    for name in names():
        if find(name).detect(source):
            return name
    keys = list(source.tensors)
    unknown = {name: table(name, keys).unknown(keys) for name in names()}
    closest = min(unknown, key=lambda name: len(unknown[name]))
    count = len(keys) - len(unknown[closest])
    if not count:
        raise UnknownLayout(
            f"{source.place}: unknown layout, its {len(keys)} keys begin with "
            f"{listed(keys)}; formats: {', '.join(names())}"
        )
    lacks = f"no place for {listed(unknown[closest])}"
    advice = getattr(find(closest), "ADVICE", "")
    raise UnknownLayout(
        f"{source.place}: unknown layout; {closest} is the closest, with a place for "
        f"{count} of {len(keys)} keys and "
        f"{lacks if unknown[closest] else 'no config beside them'}"
        f"{advice and ': '}{advice}"
    )


def loaded(table: Table, source: Source) -> tuple[dict[str, np.ndarray], dict]:
    """Our float32 arrays of a source, and `kept`: `saved` gives the same file again.

    Raises:
      UserError: an array that has no exact form in float32, or holds NaN or Inf.
    """
    carried = {k: v for k, v in source.tensors.items() if table.skips(k)}
    rest = {k: v for k, v in source.tensors.items() if k not in carried}
    dtypes = {k: str(v.dtype) for k, v in rest.items() if v.dtype != np.float32}
    for key, kind in dtypes.items():
        if kind not in ("float16", "bfloat16"):
            raise UserError(
                f"{source.place}: {key} is {kind}: only float16, bfloat16 and float32 "
                "fit"
            )
    wide = {k: v.astype(np.float32) for k, v in rest.items()}
    finite(wide, source.place)
    kept = {
        key: {"dtype": str(v.dtype), "values": v.tolist()} for key, v in carried.items()
    }
    arrays = table.load(wide, source.place)
    return arrays, {"dtypes": dtypes, "carried": kept}


def saved(table: Table, model: Model) -> dict[str, np.ndarray]:
    """A source's arrays of a model, in the dtypes and with the arrays that `loaded`
    kept; a weight that was trained on is rounded."""
    dtypes = model.kept.get("dtypes", {})
    tensors = {
        key: np.asarray(value, dtypes.get(key, value.dtype), order="C")
        for key, value in table.save(model.arrays).items()
    }
    for key, note in model.kept.get("carried", {}).items():
        tensors[key] = np.asarray(note["values"], note["dtype"])
    return tensors


def split(tensors: Arrays, *parts: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by part, the keys without the `part.` that they begin with."""
    return {
        part: {
            key.removeprefix(f"{part}."): value
            for key, value in tensors.items()
            if key.startswith(f"{part}.")
        }
        for part in parts
    }
