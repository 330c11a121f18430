"""Evaluators: plug-ins that get named predict functions and give named numbers."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Env, EvalConfig, Evaluator, Network, Result

__path__ = pkgutil.extend_path(__path__, __name__)

__all__ = ["Env", "EvalConfig", "Evaluator", "Network", "Result", "build"]


def build(
    name: str, cfg: Mapping[str, Any], env: Env, where: str | None = None
) -> Evaluator:
    """The evaluator that `cfg["type"]` names, reading errors at `config.evals.<name>`.

    The type is a module of this package, or any importable module by its dotted name,
    that holds a class `Evaluator`.

    Raises:
      UserError: no such type (names the nearest), or whatever is wrong with `cfg`.
    """
    where = where or f"config.evals.{name}"
    if "type" not in cfg:
        raise UserError(f"{where}: 'type' is missing (legal: {', '.join(_types())})")
    return find(str(cfg["type"]), where).Evaluator(cfg, env, where)


def find(kind: str, where: str) -> Any:
    """The module of a type of evaluators; UserError where there is none."""
    module = _module(kind)
    if module is None:
        hint = schema.suggest(kind, _types())
        raise UserError(f"{where}: no evaluator is called {kind!r}{hint}")
    return module


def _module(kind: str) -> Any:
    place = kind if "." in kind else f"{__name__}.{kind}"
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if f"{place}.".startswith(f"{error.name}."):
            return None
        raise  # the module is there, and something that it imports is not
    return module if getattr(module, "Evaluator", Evaluator) is not Evaluator else None


def _types() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name for name in names if _module(name) is not None]
