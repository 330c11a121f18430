"""Zero-shot, linear probe and few shots side by side, as a suite."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from mmjax import cli
from mmjax.errors import UserError
from mmjax.suite import cells as cells_lib
from mmjax.train import config as config_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITE = "experiments/clip_probes/probes.py"


def cells(*overrides):
    found = cells_lib.cells(config_lib.load(SUITE, overrides))
    return {cell.name: cell.cfg for cell in found}


def test_the_sets_of_the_experiment():
    by_name = cells("--config.only=('gtsrb','cifar10')")
    protocols = ("few_shot", "linear_probe", "zero_shot")
    assert list(by_name) == [
        f"{d}.{p}" for d in ("gtsrb", "cifar10") for p in protocols
    ]
    cifar10, gtsrb = by_name["cifar10.few_shot"], by_name["gtsrb.few_shot"]
    assert cifar10["train"].startswith("npz:") and "cifar10/" in cifar10["train"]
    assert cifar10["val"] == 0.2 and "shots" not in cifar10
    assert tuple(gtsrb["shots"]) == (1, 2, 4)
    assert len(cells()) == 12


@pytest.mark.parametrize(
    ("datasets", "more", "words"),
    [
        ({"a": {"train": "x"}}, {}, "'source' is missing"),
        ({"a": {"trian": "x"}}, {}, "did you mean 'train'"),
        ({"a": {"source": "x"}}, {"only": ("b",)}, "no data set 'b'"),
    ],
)
def test_refuses_sets(datasets, more, words):
    with pytest.raises(UserError, match=words):
        protocols = {"zero_shot": {}}
        cells_lib.cells({"datasets": datasets, "protocols": protocols, **more})


def test_a_run_of_all_protocols(tiny_run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "x.npz",
        image=rng.integers(0, 256, (30, 16, 16, 3), np.uint8),
        label=np.arange(30) % 3,
        class_names=np.asarray(["red star", "blue ring", "heart"]),
    )
    place = f"npz:{tmp_path}/x.npz"
    suite = tmp_path / "mine.py"
    suite.write_text(
        f"""
from mmjax_configs import suites

def get_config(arg=""):
    x = dict(source={place!r}, train={place!r}, val=0.2, templates="shapes")
    x["shots"] = (1, 4)
    few = dict(repeats=2, show=("shot_1",))
    protocols = dict(zero_shot=dict(), linear_probe=dict(), few_shot=few)
    return suites.suite(dict(x=x), protocols)
"""
    )
    out = tmp_path / "out"
    argv = ["eval", str(suite), str(tiny_run), "--out", str(out)]
    assert cli.main(argv) == 0
    entries = json.loads((out / "summary.json").read_text())["cells"]
    by_protocol = {e["protocol"]: e for e in entries}
    assert set(by_protocol) == {"zero_shot", "linear_probe", "few_shot"}
    values = by_protocol["few_shot"]["values"]
    assert 0 <= values["shot_1"] <= values["shot_1_hi"] <= 1
    with np.load(out / "cells" / f"{by_protocol['few_shot']['key']}.npz") as arrays:
        assert arrays["shots"].tolist() == [1, 4, 8]  # a fifth is for validation
    for name in ("overview.png", "few_shot.png"):
        assert (out / "figures" / name).read_bytes()[:4] == b"\x89PNG"
    assert "few_shot: shot_1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def probe_check():
    path = ROOT / "benchmarks/probe_check.py"
    spec = importlib.util.spec_from_file_location("probe_check", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", ["", "a", "1,-2", "0"])
def test_weights_of_the_check_that_are_none(probe_check, text):
    with pytest.raises(UserError, match="give positive numbers, such as 1,1e2,1e4"):
        probe_check.l2_values(text)


def test_weights_of_the_check(probe_check):
    assert probe_check.l2_values("1,1e2") == [1.0, 100.0]
    values = probe_check.l2_values(None)
    np.testing.assert_allclose(values, 10.0 ** np.arange(-6, 7, 2))


def test_the_check_finds_sklearns_optimum(probe_check):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels_n = np.arange(60) % 3
    features_nd = rng.normal(size=(60, 4)) + labels_n[:, None]
    (line,) = probe_check.compare(features_nd.astype(np.float32), labels_n, [1.0])
    assert abs(float(line.split("ours ")[1].split(" f")[0])) < 1e-6
