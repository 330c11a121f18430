"""Mappings become dataclasses, or say precisely why they cannot."""

import dataclasses
import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

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


@pytest.mark.parametrize(
    "text, kind, value",
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("3", str, "3"),
        ("'3'", str, "'3'"),
        ("inf", float, float("inf")),
        ("TRUE", bool, True),
        ("0", bool, False),
        ("None", int | None, None),
        ("None", str, "None"),
        ("a", str | None, "a"),
        ("shapes:val?x=1", str | tuple, "shapes:val?x=1"),
        ("(('a', 1), ('b', 2))", str | tuple, (("a", 1), ("b", 2))),
        ("[1, [2]]", tuple, (1, (2,))),
        ("a", tuple[str, ...], ("a",)),
        ("1,2", tuple[float, float], (1.0, 2.0)),
        ("pmap", Literal["jit", "pmap"], "pmap"),
        ("2024", Any, 2024),
        ("runs/1", Any, "runs/1"),
    ],
)
def test_text_is_read_as_the_annotation_asks(text, kind, value):
    parsed = schema.parse(text, kind, "key")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "text, kind, parts",
    [
        ("1.5", int, ["key: expected int (such as 7)", "'1.5' (float)"]),
        ("many", int | None, ["int | None", "'many' (str)"]),
        ("xmap", Literal["jit", "pmap"], ["'jit', 'pmap'", "'xmap'"]),
        ("(1, 2, 3)", tuple[int, int], ["tuple[int, int]", "(tuple)"]),
        ("yes", bool, ["expected bool", "'yes' (str)"]),
        ("9" * 500, float, ["key: expected float", "(int)"]),
        ("{[]: 1}", int, ["expected int", "'{[]: 1}' (str)"]),
        ("[" * 3000, float, ["expected float", "(str)"]),
    ],
)
def test_text_that_does_not_fit(text, kind, parts):
    with pytest.raises(UserError) as error:
        schema.parse(text, kind, "key", old=7)
    for part in parts:
        assert part in str(error.value)


def test_a_plugin_section_has_the_keys_of_the_class_that_it_names():
    place = "mmjax.evaluators", "type", "Config"
    kind = Annotated[dict, schema.Plugin(*place, outside=True)]
    hints, other = schema.keys(kind, {"type": "mean_loss"})
    assert hints["limit"] == int | None and hints["type"] is str and other is None
    dotted = {"type": "mmjax.evaluators.mean_loss"}
    assert schema.keys(kind, dotted)[0] == hints
    inside = Annotated[dict, schema.Plugin(*place)]
    assert schema.keys(inside, dotted)[0] == {"type": str}  # and nothing is imported
    assert schema.keys(kind, {"type": "nothing"}) == ({"type": str}, None)
    assert schema.keys(kind, {}) == ({"type": str}, None)


def test_at_least_names_the_number():
    values = types.SimpleNamespace(depth=1, width=0)
    schema.at_least(0, values, "depth", "width")
    with pytest.raises(ValueError, match="width is 0: use 1 or more"):
        schema.at_least(1, values, "depth", "width")


@pytest.mark.parametrize("kind", [ValueError, UserError])
@pytest.mark.parametrize("message", ["depth is 3: use 2", "top.depth is 3: use 2"])
def test_what_a_dataclass_refuses_names_its_place_once(kind, message):
    @dataclasses.dataclass
    class Refuses:
        depth: int

        def __post_init__(self):
            raise kind(message)

    with pytest.raises(UserError) as error:
        schema.from_mapping(Refuses, {"depth": 3}, "top")
    assert str(error.value).count("top") == 1


def test_a_pipe_or_a_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", pathlib.Path("/dev/zero"), tmp_path):
        with pytest.raises(UserError, match=f"{path}: it is no plain file: put back"):
            schema.read_json(path)
