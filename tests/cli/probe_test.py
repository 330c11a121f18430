"""The verb `probe`: which sets it reads, and one small run of all protocols."""

import json
import pathlib

import numpy as np
import pytest

from mmjax import cli
from mmjax.cli import probe
from mmjax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(tmp_path, sets):
    path = tmp_path / "sets.json"
    path.write_text(json.dumps(sets))
    return path


def test_sets_of_the_experiment_are_read(monkeypatch):
    monkeypatch.setenv("MMJAX_DATA", "/d")
    sets = probe.read_sets(ROOT / "experiments/clip_probes/sets.json", "GTSRB,CIFAR-10")
    assert list(sets) == ["GTSRB", "CIFAR-10"]
    assert sets["CIFAR-10"]["train"].startswith("npz:/d/cifar10/")
    assert (sets["CIFAR-10"]["val"], sets["GTSRB"]["shots"]) == (0.2, [1, 2, 4])


@pytest.mark.parametrize(
    "sets, only, words",
    [
        ({"a": {"train": "x", "test": "y"}}, None, "a has no 'templates'"),
        ({"a": {"trian": "x"}}, None, "did you mean 'train'"),
        ({}, "b", "no data set 'b'"),
    ],
)
def test_refuses_sets(tmp_path, sets, only, words):
    with pytest.raises(UserError, match=words):
        probe.read_sets(write(tmp_path, sets), only)


def test_refuses_files(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        probe.read_sets(tmp_path / "none.json", None)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        probe.read_sets(tmp_path / "x.json", None)


def test_a_run_of_all_protocols(tiny_run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "x.npz",
        image=rng.integers(0, 256, (30, 16, 16, 3), np.uint8),
        label=np.arange(30) % 3,
        class_names=np.asarray(["red star", "blue ring", "heart"]),
    )
    place = f"npz:{tmp_path}/x.npz"
    spec = {"train": place, "test": place, "templates": "shapes", "shots": [1, 4]}
    out = tmp_path / "out"
    argv = ["probe", str(tiny_run), "--sets", str(write(tmp_path, {"x": spec}))]
    assert cli.main([*argv, "--out", str(out), "--repeats", "2"]) == 0
    found = json.loads((out / "results.json").read_text())["tiny"]["x"]
    assert set(found) == {"zero_shot", "linear_probe", "few_shot"}
    assert 0 <= found["few_shot"]["values"]["shot_1"] <= 1
    assert found["few_shot"]["values"]["shots_full"] == 8  # a fifth is for validation
    for name in ("tiny_bars.png", "tiny_few_shot.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    assert "tiny, x: few_shot" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "a", "1,-2", "0"])
def test_strengths_that_are_none(text):
    with pytest.raises(UserError, match="give positive numbers, such as 1,1e2,1e4"):
        probe._strengths(text)


def test_strengths_of_the_check():
    assert probe._strengths("1,1e2") == [1.0, 100.0]
    found = probe._strengths(None)
    np.testing.assert_allclose(found, 10.0 ** np.arange(-6, 7, 2))
