"""Finding the modules of this package that hold a kind of network, by what they offer.

A kind is a module with `build` and a class of its own that has all of some methods.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from mmjax import models, schema
from mmjax.errors import UserError


def find(kind: Any, methods: Sequence[str], where: str, what: str) -> Any:
    """The module of a kind; UserError, which names `where`, for one that is none."""
    found = None
    if isinstance(kind, str) and kind.isidentifier():
        found = _module(kind, methods)
    if found is None:
        hint = schema.suggest(kind, kinds(methods))
        raise UserError(f"{where}.kind is {kind!r}, no kind of {what}{hint}")
    return found


def kinds(methods: Sequence[str]) -> list[str]:
    """The kinds there are."""
    names = [module.name for module in pkgutil.iter_modules(models.__path__)]
    return [name for name in names if _module(name, methods) is not None]


def _module(kind: str, methods: Sequence[str]) -> Any:
    place = f"{models.__name__}.{kind}"
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        return None
    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == place]
    fits = any(all(hasattr(v, name) for name in methods) for v in own)
    return module if fits and hasattr(module, "build") else None
