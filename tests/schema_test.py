"""Mappings become dataclasses, or say precisely why they cannot."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections
import pytest

from mmjax import schema
from mmjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 2
    scale: tuple[float, float] = (0.9, 1.0)


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 1e-3
    flag: bool = False
    dims: tuple[int, ...] = ()
    inner: Inner = Inner()
    mode: Literal["jit", "pmap"] = "jit"
    limit: int | None = None
    source: str | Mapping[str, Any] = "shapes:val"
    rules: tuple[tuple[str, float], ...] = ()
    words: Sequence[str] = ()
    towers: dict[str, Inner] = dataclasses.field(default_factory=dict)
    maybe: Inner | None = None

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0, got {self.rate}")


def build(**values):
    return schema.from_mapping(Outer, {"name": "a", **values}, "config.outer")


def test_promotes_and_nests():
    got = build(
        rate=1,
        dims=[1, 2],
        inner={"depth": 4, "scale": [1, 2]},
        rules=[["bias", 0]],
        words=["a"],
        towers={"image": {"depth": 7}},
        maybe={"depth": 9},
    )
    assert got.rate == 1.0 and isinstance(got.rate, float)
    assert got.dims == (1, 2)
    assert got.inner == Inner(4, (1.0, 2.0))
    assert isinstance(got.inner.scale[0], float)
    assert got.rules == (("bias", 0.0),)
    assert got.words == ("a",)
    assert got.towers == {"image": Inner(7)}
    assert got.maybe == Inner(9)


def test_unions_keep_what_they_are_given():
    assert build(limit=3).limit == 3
    assert build(limit=None).limit is None
    assert build(source={"kind": "x"}).source == {"kind": "x"}
    assert build(source="x").source == "x"


def test_config_dict_and_instances():
    config = ml_collections.ConfigDict({"name": "a", "inner": {"depth": 3}})
    assert schema.from_mapping(Outer, config).inner.depth == 3
    assert build(inner=Inner(5)).inner == Inner(5)


@pytest.mark.parametrize(
    "values, parts",
    [
        ({"raet": 1}, ["config.outer", "'raet'", "did you mean 'rate'?"]),
        ({"inner": {"dept": 1}}, ["config.outer.inner", "'dept'", "'depth'"]),
        ({"maybe": {"dept": 1}}, ["config.outer.maybe", "'dept'", "'depth'"]),
        ({"rate": "fast"}, ["config.outer.rate", "float", "'fast' (str)"]),
        ({"limit": 1.5}, ["config.outer.limit", "1.5 (float)"]),
        ({"limit": True}, ["config.outer.limit", "True (bool)"]),
        ({"flag": 1}, ["config.outer.flag", "bool", "1 (int)"]),
        ({"mode": "xmap"}, ["config.outer.mode", "'xmap'", "'jit', 'pmap'"]),
        ({"inner": {"scale": [1]}}, ["config.outer.inner.scale", "2 values"]),
        ({"dims": [1, "b"]}, ["config.outer.dims[1]", "'b' (str)"]),
        ({"dims": "12"}, ["config.outer.dims", "'12' (str)"]),
        ({"rate": -1}, ["config.outer", "rate must be >= 0"]),
        ({"inner": 3}, ["config.outer.inner", "3 (int)"]),
    ],
)
def test_errors_name_place_and_fix(values, parts):
    with pytest.raises(UserError) as error:
        build(**values)
    for part in parts:
        assert part in str(error.value)


def test_missing_key():
    with pytest.raises(UserError, match="config: 'name' is missing; give it as str"):
        schema.from_mapping(Outer, {})


def test_at_least_names_the_number():
    values = types.SimpleNamespace(depth=1, width=0)
    schema.at_least(0, values, "depth", "width")
    with pytest.raises(ValueError, match="width is 0: use 1 or more"):
        schema.at_least(1, values, "depth", "width")
