"""What `import mmjax` offers: few names, all documented and typed, at no cost."""

import inspect
import subprocess
import sys
import time

import pytest

import mmjax

NAMES = sorted(mmjax.__all__)


def members(cls):
    """(name, what it is) of everything public that one of our classes has itself or
    takes from another of ours."""
    for name in dir(cls):
        owner = next(c for c in cls.__mro__ if name in vars(c))
        if name[0] != "_" and owner.__module__.startswith("mmjax."):
            yield name, vars(owner)[name]


def functions(thing):
    """The functions whose signatures a reader sees."""
    if isinstance(thing, property):
        return [thing.fget]
    if isinstance(thing, staticmethod | classmethod):
        return [thing.__func__]
    thing = getattr(thing, "func", thing)  # of a cached_property
    return [thing] if inspect.isfunction(thing) else []


def faults(place, thing):
    for function in functions(thing):
        if not inspect.getdoc(function):
            yield f"{place} has no docstring"
        signature = inspect.signature(function)
        for name, argument in signature.parameters.items():
            if name not in ("self", "cls") and argument.annotation is argument.empty:
                yield f"{place}: {name} has no annotation"
        if signature.return_annotation is signature.empty:
            yield f"{place}: its result has no annotation"


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented_and_typed(name):
    thing = getattr(mmjax, name)
    assert thing.__module__.startswith("mmjax."), "a name of another package"
    assert inspect.getdoc(thing)
    wrong = list(faults(name, thing))
    if inspect.isclass(thing):
        for member, value in members(thing):
            wrong += faults(f"{name}.{member}", value)
        for field in getattr(thing, "__dataclass_fields__", ()):
            bases = [inspect.getdoc(c) or "" for c in thing.__mro__[:-1]]
            if not any(f"{field}" in text for text in bases):
                wrong.append(f"{name}.{field} is in no docstring")
    assert not wrong, "\n".join(wrong)


def test_the_test_sees():
    def bare(a):
        pass

    assert len(list(faults("x", bare))) == 3
    assert len(list(faults("x", property(bare)))) == 3


def test_dir_lists_the_public_names_alone():
    assert set(dir(mmjax)) == {*NAMES, "__version__"}
    assert set(mmjax._PLACES) | {"UserError"} == set(NAMES)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = mmjax.lod


def test_importing_is_cheap():
    code = "import sys, mmjax; dir(mmjax); sys.exit('jax' in sys.modules)"
    start = time.perf_counter()
    assert subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    bare = time.perf_counter() - start
    start = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code], check=True)
    # 0.02 s, and here twice what a loaded machine may take
    assert time.perf_counter() - start < 0.3 + 2 * bare
