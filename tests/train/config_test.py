import json
import sys

import pytest
from ml_collections import ConfigDict, config_dict

from mmjax.errors import UserError
from mmjax.train import config

FILE = """
from ml_collections import ConfigDict
from configs import neighbour

def get_config(arg=""):
    if arg not in ("", "small"):
        raise ValueError(f"no preset {arg!r}: use small")
    return ConfigDict(dict(
        steps=neighbour.STEPS if arg == "small" else 100, lr=0.5, flag=True,
        dims=(1, 2), name="a", data=dict(train="shapes:train"), optim=dict(lr=1e-3),
    ))
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(FILE)
    (folder / "neighbour.py").write_text("STEPS = 7\n")
    (folder / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    # `configs` of this checkout may be imported by now, and would hide the other
    held = {k: sys.modules.pop(k) for k in list(sys.modules) if _ours(k)}
    yield tmp_path
    for name in filter(_ours, list(sys.modules)):
        del sys.modules[name]
    sys.modules.update(held)


def _ours(module):
    return module.split(".")[0] == "configs"


def test_presets_and_neighbours(checkout):
    assert config.load("configs/mine.py").steps == 100
    small = config.load(f"{checkout}/configs/mine.py:small")
    assert small.steps == 7 and small.is_locked


def test_found_beside_the_package(checkout, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "HOME", checkout)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert config.load("configs/mine.py:small").steps == 7


def test_overrides(checkout):
    given = ["steps=3", "lr=2", "flag=False", "dims=(5,6,7)", "optim.lr=3e-4", "name="]
    got = config.load("configs/mine.py", [f"--config.{text}" for text in given])
    assert (got.steps, got.lr, got.flag, got.name) == (3, 2.0, False, "")
    assert got.dims == (5, 6, 7)
    assert got.optim.lr == 3e-4


def test_keys_left_at_their_default_can_be_given(checkout):
    given = ["--config.optim.clip_norm=2", "--config.log_every=5"]
    got = config.load("configs/mine.py", given)
    assert got.optim.clip_norm == 2.0 and got.log_every == 5


def test_evaluator_keys_left_at_their_default():
    base = ConfigDict({"evals": {"zs": {"type": "zero_shot", "source": "shapes:val"}}})
    got = config.override(base, ["--config.evals.zs.limit=10"])
    assert got.evals.zs.limit == 10
    with pytest.raises(UserError, match="'limt'.*did you mean 'limit'"):
        config.override(base, ["--config.evals.zs.limt=10"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stepz=3", ["config: unknown key 'stepz'", "did you mean 'steps'?"]),
        ("optim.lrr=3", ["config.optim: unknown key 'lrr'", "did you mean 'lr'?"]),
        ("optin.lr=3", ["config: unknown key 'optin'", "did you mean 'optim'?"]),
        ("steps=many", ["--config.steps: expected int", "'many' (str)", "100"]),
        ("steps=1.5", ["--config.steps: expected int", "'1.5' (float)"]),
        ("lr=fast", ["--config.lr: expected float", "'fast' (str)"]),
        ("flag=maybe", ["--config.flag: expected bool", "'maybe' (str)"]),
        ("optim=3", ["a whole ConfigDict", "one by one"]),
        ("steps.x=3", ["config.steps is 100 and has no keys"]),
        ("steps", ["write --config.steps=VALUE"]),
    ],
)
def test_bad_overrides(checkout, text, parts):
    with pytest.raises(UserError) as caught:
        config.load("configs/mine.py", [f"--config.{text}"])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("configs/minn.py", "no config file configs/minn.py"),
        ("configs/mine.py:large", "no preset 'large': use small"),
        ("configs/neighbour.py", "get_config"),
    ],
)
def test_bad_files(checkout, spec, part):
    with pytest.raises(UserError) as caught:
        config.load(spec)
    assert part in str(caught.value)


def test_placeholders_take_a_value():
    base = ConfigDict({"seed": config_dict.placeholder(int)})
    assert config.override(base, ["--config.seed=4"]).seed == 4


def test_json_comes_back_with_tuples():
    given = ConfigDict({"a": {"dims": (1, (2, "x"))}, "mix": (("s", 1.0),), "n": None})
    back = config.from_json(json.loads(given.to_json()))
    assert back.to_dict() == given.to_dict()
    assert config.from_json(given.to_json()).a.dims == (1, (2, "x"))


def test_the_given_config_stays_as_it_was():
    base = ConfigDict({"steps": 1}).lock()
    assert config.override(base, ["--config.steps=2"]).steps == 2
    assert base.steps == 1 and base.is_locked
