"""Specs of sources rewritten: with an option more, with absolute places.

A spec is text, `kind:path?option=value`, a mapping, or a mixture of (spec, weight).
"""

import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax.data import sources

_PATTERN = frozenset("*?[{")  # of a path that stands for several files


def with_options(spec: Any, **options: Any) -> Any:
    """The spec with these options; of a mixture, every part of it."""
    if isinstance(spec, tuple | list):
        return tuple((with_options(part, **options), *w) for part, *w in spec)
    kind, path, given = sources.parse(spec)
    return _write(spec, kind, path, {**given, **options})


def has_option(spec: Any, name: str) -> bool:
    """Whether the spec, or a part of a mixture, gives the option."""
    if isinstance(spec, tuple | list):
        return any(has_option(part, name) for part, *_ in spec)
    return name in sources.parse(spec)[2]


def absolute(spec: Any) -> Any:
    """The spec with absolute places, so that it means the same in every folder.

    Its places are the path, where `open` of its kind has a first parameter of that name
    and something lies there, the option `names`, and those of specs inside it. What
    cannot be read as a spec comes back as it is: whoever opens it says what is wrong.
    """
    if isinstance(spec, tuple | list):
        pairs = all(isinstance(part, tuple | list) and part for part in spec)
        return tuple((absolute(p), *w) for p, *w in spec) if pairs else spec
    if isinstance(spec, str):
        if spec.partition(":")[0] not in sources.kinds() or ":" not in spec:
            return spec
    elif not (hasattr(spec, "keys") and "kind" in spec):
        return spec
    kind, path, options = sources.parse(spec)
    if kind == "mixture":
        return _write(
            spec, kind, path, {**options, "parts": absolute(options["parts"])}
        )
    if kind not in sources.kinds():
        return spec
    takes = inspect.signature(sources.module(kind, spec).open, eval_str=True).parameters
    for name, value in options.items():
        nested = name in takes and takes[name].annotation == str | Mapping[str, Any]
        if nested or name == "names":
            options[name] = (absolute if nested else _place)(value)
    inner = absolute(path)  # of `frames:npz:/d/strips.npz`
    if next(iter(takes), "") == "path" and inner == path:
        inner = _place(path)
    return _write(spec, kind, inner, options)


def _place(path: str) -> str:
    home = pathlib.Path(path).expanduser()
    there = _PATTERN & set(path) or home.exists()
    stays = not path or path.startswith("$") or "://" in path
    return str(home.absolute()) if there and not stays else path


def _write(spec: Any, kind: str, path: str, options: Mapping[str, Any]) -> Any:
    """A spec of these parts, text or a mapping as `spec` is."""
    if not isinstance(spec, str):
        return {"kind": kind, **({"path": path} if path else {}), **options}
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{kind}:{path}" + (f"?{query}" if query else "")
