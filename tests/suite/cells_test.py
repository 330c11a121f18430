"""A suite's cells: what each evaluator is built from, and what is refused."""

import json

import pytest

from mmjax.errors import UserError
from mmjax.suite import cells as cells_lib
from mmjax.train import config as config_lib

A = {"source": "a", "val": "v", "captions": "c", "templates": "clip7"}
ZERO = {"type": "zero_shot"}
CALIBRATION = {"type": "calibration", "needs": ("val",)}


def planned(datasets, protocols, **more):
    found = cells_lib.cells({"datasets": datasets, "protocols": protocols, **more})
    return {cell.name: cell.cfg for cell in found}


def test_an_evaluator_gets_the_parts_that_it_reads():
    protocols = {
        "zero": ZERO,
        "plain": {**ZERO, "templates": "plain", "resamples": 9},
        "fit": CALIBRATION,
        "gap": {"type": "modality_gap", "on": "captions"},
    }
    found = planned({"x": A}, protocols)
    names = {"templates": "clip7", "class_names": ()}
    assert found["x.zero"] == {"type": "zero_shot", "source": "a", **names}
    assert found["x.plain"]["templates"] == "plain"  # the protocol's own key wins
    assert found["x.plain"]["resamples"] == 9
    assert found["x.fit"]["val"] == "v"
    assert found["x.gap"] == {"type": "modality_gap", "source": "c"}


def test_a_data_set_takes_its_protocols_and_the_least_limit():
    datasets = {
        "x": {**A, "protocols": ("zero",), "limit": 5},
        "y": {**A, "limit": 50},
    }
    found = planned(datasets, {"zero": ZERO, "fit": CALIBRATION}, limit=20)
    assert {k: v["limit"] for k, v in found.items()} == {
        "x.zero": 5,
        "y.zero": 20,
        "y.fit": 20,
    }


@pytest.mark.parametrize(
    ("datasets", "protocols", "part"),
    [
        ({"x": {"source": "a"}}, {"fit": CALIBRATION}, "x has no val split"),
        ({"x": {"source": "a"}}, {"gap": {**ZERO, "on": "captions"}}, "no captions"),
        ({"x": {**A, "protocols": ("zeero",)}}, {"zero": ZERO}, "did you mean 'zero'"),
        ({"x": {**A, "tempaltes": "clip7"}}, {"zero": ZERO}, "mean 'templates'"),
        ({"x": A}, {"zero": {"type": "zeroshot"}}, "did you mean 'zero_shot'"),
        ({"x": A}, {"zero": {**ZERO, "on": "vall"}}, "did you mean 'val'"),
        ({"x": A}, {"zero": {}}, "no evaluator is called 'zero'; did you mean"),
        ({}, {"zero": ZERO}, "nothing|no data set"),
    ],
)
def test_what_is_refused(datasets, protocols, part):
    with pytest.raises(UserError, match=part):
        planned(datasets, protocols)


class Opened:
    def __init__(self, spec):
        self.spec = spec

    def fingerprint(self):
        return f"data of {self.spec}"


def key(cfg, model=None, opened=Opened):
    place = ("x", "zero", "zero_shot", (), "x")
    cell = cells_lib.Cell(*place, {"type": "zero_shot", **cfg})
    return cell.key(model or {"fingerprint": "f", "step": 1}, opened)


def test_a_key_changes_with_what_can_change_the_numbers(tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"a": ["cat", "dog"], "b": ["chat", "chien"]}))
    cfg = {"source": "a", "templates": "photo", "class_names": f"{names}#a"}
    base = key(cfg)
    assert key({**cfg, "every": 7, "batch_size": 3}) == base
    assert key({**cfg, "templates": "a photo of a {}."}) == base  # the same sentence
    same_data = lambda spec: Opened("a")  # noqa: E731
    assert key({**cfg, "source": "moved"}, opened=same_data) == base
    others = [
        key({**cfg, "templates": "plain"}),
        key({**cfg, "class_names": f"{names}#b"}),
        key({**cfg, "source": "b"}),
        key({**cfg, "seed": 1}),
        key({**cfg, "limit": 4}),
        key(cfg, {"fingerprint": "g", "step": 1}),
    ]
    names.write_text(json.dumps({"a": ["cat", "hound"]}))
    others.append(key(cfg))  # the file holds other names now
    assert len({base, *others}) == len(others) + 1


@pytest.mark.parametrize("name", ["tiny", "shapes", "bundle"])
def test_shipped_suites_have_cells_of_every_protocol(name):
    config = config_lib.load(f"configs/suites.py:{name}", ["--config.limit=8"])
    cells = cells_lib.cells(config)
    assert {cell.protocol for cell in cells} == set(config.protocols)
    assert all(cell.cfg["limit"] == 8 for cell in cells)
