"""The API pages: every public name of what they list has a docstring."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import commands
import pytest

import mmjax

PAGES = commands.ROOT / "docs" / "api"
LISTED = {
    name: page.name
    for page in sorted(PAGES.glob("*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)
}
PACKAGES = [name for name, page in LISTED.items() if page != "mmjax.md"]


def test_the_page_of_the_public_names_has_all_of_them():
    """tests/public_test.py has their members and signatures."""
    named = [name for name, page in LISTED.items() if page == "mmjax.md"]
    assert sorted(named) == sorted(f"mmjax.{name}" for name in mmjax.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_undocumented(package):
    own = [thing for module in modules(package) for thing in names(module)]
    classes = [thing for _, thing in own if inspect.isclass(thing)]
    methods = [one for thing in classes for one in members(thing)]
    # what a protocol of the package says of a method holds for all that have it
    told = {place.rpartition(".")[2] for place, thing in methods if documented(thing)}
    silent = [place for place, thing in own if not inspect.getdoc(thing)]
    silent += [p for p, _ in methods if p.rpartition(".")[2] not in told]
    assert not silent, "\n".join(silent)


def modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    below = pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}.")
    yield from (importlib.import_module(info.name) for info in below)


def names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public classes and functions that a module defines."""
    for name, thing in vars(module).items():
        is_one = inspect.isclass(thing) or inspect.isfunction(thing)
        if name[0] != "_" and is_one and thing.__module__ == module.__name__:
            yield f"{module.__name__}.{name}", thing


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines."""
    for name, thing in vars(cls).items():
        function = getattr(thing, "func", getattr(thing, "fget", thing))
        function = getattr(function, "__func__", function)
        is_field = name in getattr(cls, "__dataclass_fields__", ())
        if name[0] != "_" and inspect.isfunction(function) and not is_field:
            inherited = [getattr(base, name, None) for base in cls.__mro__[1:]]
            said = next((x for x in [function, *inherited] if documented(x)), function)
            yield f"{cls.__module__}.{cls.__name__}.{name}", said


def documented(thing: Any) -> bool:
    return thing is not None and bool(inspect.getdoc(thing))
