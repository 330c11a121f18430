import numpy as np
import pytest

from mmjax.convert import name_table, transforms
from mmjax.convert.name_table import Rule, Table, UnknownLayout
from mmjax.convert.transforms import DENSE, joined

TABLE = Table(
    Rule("blocks.{i}.ln.weight", "params/block_{i}/norm/scale"),
    Rule(
        [f"blocks.{{i}}.{name}.weight" for name in "qkv"],
        "params/block_{i}/qkv/kernel",
        joined(3, DENSE),
    ),
    Rule(
        "layer{s+1}.{b}.conv.weight", "params/stage_{s}_block_{b}/conv", transforms.CONV
    ),
    skip=("*.position_ids",),
)


def tensors():
    rng = np.random.default_rng(0)
    shapes = {f"blocks.{i}.{name}.weight": (4, 6) for i in range(2) for name in "qkv"}
    shapes |= {f"blocks.{i}.ln.weight": (6,) for i in range(2)}
    shapes |= {"layer1.0.conv.weight": (5, 3, 2, 2)}
    return {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}


def test_there_and_back_is_equal_to_the_bit():
    theirs = tensors()
    ours = TABLE.load(theirs, "x")
    assert ours["params/block_1/qkv/kernel"].shape == (6, 12)
    assert (
        ours["params/block_1/qkv/kernel"][:, 4:8] == theirs["blocks.1.k.weight"].T
    ).all()
    assert ours["params/stage_0_block_0/conv"].shape == (2, 2, 3, 5)
    back = TABLE.save(ours)
    assert back.keys() == theirs.keys()
    assert all((back[k] == theirs[k]).all() for k in theirs)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"blocks.0.bias": np.zeros(3)}, "no rule for blocks.0.bias"),
        ({"blocks.0.k.weight": None}, "lacks blocks.{i}.k.weight"),
        ({"layer1.0.conv.weight": np.zeros((3, 3))}, "layer1.0.conv.weight (3, 3)"),
        ({f"x{i}": np.zeros(3) for i in range(9)}, "x0, x1, x2, x3, x4 and 4 more"),
    ],
)
def test_strict(change, part):
    theirs = {k: v for k, v in (tensors() | change).items() if v is not None}
    with pytest.raises(UnknownLayout) as error:
        TABLE.load(theirs, "file")
    assert part in str(error.value) and "file" in str(error.value)


def test_two_keys_for_one_path():
    both = Table(Rule("a", "params/x"), Rule("b", "params/x"))
    with pytest.raises(UnknownLayout, match="a and b are both params/x"):
        both.load({"a": np.zeros(1), "b": np.zeros(1)}, "file")


def test_two_rules_for_one_key():
    with pytest.raises(ValueError, match="two rules for a"):
        Table(Rule("a", "params/x"), Rule("a", "params/y"))


def test_a_path_without_a_place():
    with pytest.raises(UnknownLayout, match="no place for params/other"):
        TABLE.save({"params/other": np.zeros(1)})


def test_skipped_keys_and_counting():
    keys = ["blocks.0.ln.weight", "text.position_ids", "else"]
    assert TABLE.unknown(keys) == ["else"]
    assert not TABLE.load({"text.position_ids": np.arange(3)}, "x")


def test_fit():
    ours = {"params/a": np.zeros((2, 3))}
    name_table.fit(ours, {"params/a": (2, 3)}, "file")
    for shapes, part in (
        ({"params/a": (3, 2)}, r"params/a is \(2, 3\), and \(3, 2\)"),
        ({"params/a": (2, 3), "params/b": ()}, "nothing for params/b"),
        ({}, "no params/a"),
    ):
        with pytest.raises(UnknownLayout, match=part):
            name_table.fit(ours, shapes, "file")


@pytest.mark.parametrize("depth", [1, 3])
def test_scanned_blocks(depth):
    ours = {
        f"params/text/transformer/block_{i}/mlp/fc/kernel": np.full((2, 2), float(i))
        for i in range(depth)
    } | {"params/logit_scale": np.zeros(())}
    made = name_table.stacked(ours)
    if depth == 3:
        assert made["params/text/transformer/blocks/mlp/fc/kernel"].shape == (2, 2, 2)
    assert len(made) == min(depth, 2) + 1
    back = name_table.unstacked(made)
    assert back.keys() == ours.keys()
    assert all((back[k] == ours[k]).all() for k in ours)


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (transforms.SAME, (3, 4)),
        (transforms.DENSE, (3, 4)),
        (transforms.CONV, (5, 3, 2, 2)),
        (transforms.POINT, (5, 3, 1, 1)),
        (transforms.PATCHES, (5, 3, 4, 4)),
        (transforms.VECTOR, (1,)),
        (transforms.squeezed(2), (1, 1, 7)),
    ],
)
def test_forms_undo_themselves(form, shape):
    theirs = np.random.default_rng(0).normal(size=shape)
    (back,) = form.save(form.load([theirs]))
    assert back.shape == shape and (back == theirs).all()
