"""Public formats, one module each; a new one is a new file here and nothing else.

A module has:

    ABOUT          a line for the list of formats
    TASK           the name of our task that its models are
    detect(source) -> bool: whether a source is of this format
    known(keys)    -> int: how many of these keys its tables have a place for
    to_mmjax(source) -> Model
    from_mmjax(model) -> Export
ADVICE, a sentence, is what to do where all keys have a place and no config is there;
and, where the original can be built from what `from_mmjax` wrote (for `--check`):
    reference(folder, batch) -> dict of arrays by the names of our predict functions
"""

import dataclasses
import importlib
import pathlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from mmjax import schema
from mmjax.convert.name_table import Table, UnknownLayout, listed
from mmjax.convert.read import Source
from mmjax.errors import UserError

__path__ = pkgutil.extend_path(__path__, __name__)

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of ours, on its way in or out.

    task, image: `config.task` and `config.data.fields.image`. tokenizer: what
    `data.text.Tokenizer.to_json` gives, or None where there is no text. arrays: by
    path, unrolled, `params/...` and the extra collections (`batch_stats/...`). kept:
    what the format carries and ours does not, so that it can be written again.
    """

    task: Mapping[str, Any]
    image: Mapping[str, Any]
    tokenizer: str | None
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


class Family(Protocol):
    """What a module of this package offers; see above."""

    ABOUT: str
    TASK: str

    def detect(self, source: Source) -> bool: ...
    def known(self, keys: Iterable[str]) -> int: ...
    def to_mmjax(self, source: Source) -> Model: ...
    def from_mmjax(self, model: Model) -> Export: ...


def names() -> list[str]:
    """The formats there are. Modules that begin with `_` are parts of others."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if not name.startswith("_"))


def find(name: str) -> Family:
    """The format called `name`; UserError with the nearest name if there is none."""
    if name not in names():
        raise UserError(f"no format {name!r}{schema.suggest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")


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
    closest = max(names(), key=lambda name: find(name).known(keys))
    count = find(closest).known(keys)
    if not count:
        raise UnknownLayout(
            f"{source.place}: unknown layout, its {len(keys)} keys begin with "
            f"{listed(keys)}; formats: {', '.join(names())}",
            keys,
        )
    unknown = _unknown(find(closest), keys)
    what = f"no place for {listed(unknown)}" if unknown else "no config beside them"
    advice = getattr(find(closest), "ADVICE", "")
    raise UnknownLayout(
        f"{source.place}: unknown layout; {closest} is the closest, with a place for "
        f"{count} of {len(keys)} keys and {what}{advice and ': '}{advice}",
        unknown,
    )


def _unknown(family: Family, keys: list[str]) -> list[str]:
    """Keys without a place. Where the names depend on each other (a ResNet's and a
    ViT's `conv1`), the format says so itself, by `unknown`."""
    if hasattr(family, "unknown"):
        return family.unknown(keys)
    return [key for key in keys if not family.known([key])]


# -- what the source's numbers were ----------------------------------------------
def widened(
    tensors: Arrays, where: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """float32 arrays, and the dtypes of those that were not: exact both ways."""
    dtypes = {k: str(v.dtype) for k, v in tensors.items() if v.dtype != np.float32}
    for key, kind in dtypes.items():
        if kind not in ("float16", "bfloat16"):
            raise UserError(
                f"{where}: {key} is {kind}: only float16, bfloat16 and float32 fit"
            )
    return {k: v.astype(np.float32) for k, v in tensors.items()}, dtypes


def narrowed(tensors: Arrays, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Undoes `widened`; a weight that was trained on is rounded."""
    return {k: v.astype(dtypes.get(k, v.dtype)) for k, v in tensors.items()}


def loaded(
    table: Table, source: Source, *, drop: Iterable[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Our arrays of a source, and `kept` so that `saved` gives the same file again.

    drop: keys of small arrays without a place here (counters), kept as numbers.
    """
    dropped = {key: source.tensors[key] for key in drop if key in source.tensors}
    rest = {k: v for k, v in source.tensors.items() if k not in dropped}
    skipped = {k: v for k, v in rest.items() if table.skips(k)}
    kept = {
        key: {"dtype": str(value.dtype), "shape": value.shape, "values": value.ravel()}
        for key, value in (dropped | skipped).items()
    }
    for note in kept.values():
        note["shape"], note["values"] = list(note["shape"]), note["values"].tolist()
    wide, dtypes = widened(
        {k: v for k, v in rest.items() if k not in skipped}, source.place
    )
    arrays = table.load(wide, source.place)
    return arrays, {"dtypes": dtypes, "carried": kept}


def saved(table: Table, model: Model) -> dict[str, np.ndarray]:
    """A source's arrays of a model; what `loaded` kept is put back."""
    tensors = table.save(model.arrays)
    tensors = narrowed(tensors, model.kept.get("dtypes", {}))
    for key, note in model.kept.get("carried", {}).items():
        values = np.asarray(note["values"], note["dtype"])
        tensors[key] = values.reshape(note["shape"])
    return {key: np.asarray(value, order="C") for key, value in tensors.items()}


def read_file(folder: pathlib.Path, name: str) -> str | None:
    """A text file beside the weights, or None where there is none."""
    path = folder / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def unit() -> np.ndarray:
    """1.0, for variables that a format does not carry."""
    return np.ones((), np.float32)


def replaced(model: Model, arrays: Arrays) -> Model:
    """A model with other arrays."""
    return dataclasses.replace(model, arrays=arrays)
