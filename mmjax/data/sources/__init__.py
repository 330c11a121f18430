"""One door to every data set: `open_source("kind:path?option=value&option=value")`.

The kind is a module here, `mmjax.data.sources.<kind>`, with a function
`open(path, **options)`; a new kind is a new file and nothing else. What lies at `path`
is on disk; where it is a split or a name, the parameter is called so. Some options are
understood by every kind, such as `names`, `skip` and `limit` (see `views`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax import schema
from mmjax.data.records import Source
from mmjax.data.sources import views
from mmjax.errors import UserError

__path__ = pkgutil.extend_path(__path__, __name__)

_INNER = ("columns", "encoded", "table", "views")  # parts of sources, not kinds
_SPLIT = re.compile(r"\?(?=[A-Za-z_]\w*=)")  # so that a glob may hold a `?`
_NEXT = re.compile(r"&(?=[A-Za-z_]\w*=)")  # so that a template may hold an `&`
_FALSE = {"false": False, "0": False, "no": False}
_TRUE = {"true": True, "1": True, "yes": True}


def open_source(spec: str | Mapping[str, Any] | Sequence[tuple]) -> Source:
    """Opens a source.

    Args:
      spec: `kind:path?option=value&...`, for example
        `webdataset:/data/flickr8k-train-*.tar?text=captions`, or the mapping
        {"kind": ..., "path": ..., option: value, ...}, or a list of (spec, weight)
        pairs, which is a mixture.

    Raises UserError for an unknown kind or option (naming the nearest), an option of
    the wrong type, and for whatever the kind refuses.
    """
    if isinstance(spec, (tuple, list)):
        spec = {"kind": "mixture", "parts": spec}
    kind, path, options = parse(spec)
    if path.startswith("$MMJAX_DATA"):
        raise UserError(
            f"{kind} data {path!r}: set MMJAX_DATA to the folder of the real sets; "
            "docs/data.md says where each comes from, or name data of your own"
        )
    shared = {name: options.pop(name) for name in views.OPTIONS if name in options}
    opened = module(kind, spec)
    _check_names(kind, opened.open, {**options, **shared})
    source = opened.open(path, **_typed(kind, opened.open, options))
    return views.apply(source, **_typed(kind, views.apply, shared))


def parse(spec: str | Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """(kind, path, options) of a spec in either form."""
    if not isinstance(spec, str):  # a dict, or a ConfigDict inside another
        options = {key: value for key, value in spec.items() if value is not None}
        if "kind" not in options:
            raise UserError(
                f"data spec {dict(spec)} has no 'kind': use one of {_say()}"
            )
        return options.pop("kind"), str(options.pop("path", "")), options
    kind, colon, rest = spec.partition(":")
    if not colon:
        raise UserError(
            f"data spec {spec!r} has no kind: write 'kind:path', with kind {_say()}"
        )
    path, *query = _SPLIT.split(rest, maxsplit=1)
    pairs = _NEXT.split(query[0]) if query else []
    return kind, path, dict(pair.split("=", 1) for pair in pairs)


def kinds() -> list[str]:
    """The names that may stand before the colon."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name not in _INNER)


def module(kind: str, spec: object) -> Any:
    """The module of a kind; UserError, about `spec`, where there is none."""
    if kind not in kinds():
        hint = schema.suggest(kind, kinds())
        raise UserError(f"unknown kind of data {kind!r} in {spec!r}{hint}")
    return importlib.import_module(f"{__name__}.{kind}")


def _say() -> str:
    return ", ".join(kinds())


def _check_names(kind: str, function: Any, options: Mapping[str, Any]) -> None:
    legal = [*list(inspect.signature(function).parameters)[1:], *views.OPTIONS]
    for name in options:
        if name not in legal:
            hint = schema.suggest(name, legal)
            raise UserError(f"{kind} data has no option {name!r}{hint}")


def _typed(kind: str, function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that came as text, as the type that `function` declares for them."""
    declared = inspect.signature(function, eval_str=True).parameters
    out = {}
    for name, value in options.items():
        wanted = declared[name].annotation
        try:
            out[name] = _convert(value, wanted) if isinstance(value, str) else value
        except (ValueError, KeyError):
            kind_of = getattr(wanted, "__name__", wanted)
            raise UserError(
                f"{kind} option {name}={value!r}: give a value of type {kind_of}"
            ) from None
    return out


def _convert(value: str, wanted: Any) -> Any:
    if wanted is bool:
        return {**_TRUE, **_FALSE}[value.lower()]
    if wanted in (int, int | None):
        return int(value)
    if wanted in (float, float | None):
        return float(value)
    return value
