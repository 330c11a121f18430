"""Suites that are stopped go on: no cell is run twice, none is left half written."""

import json

import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.evaluators import Result
from mmjax.inference import load
from mmjax.suite import cells as cells_lib
from mmjax.suite import runner

ONE = "size=16&objects=1"
DATASETS = {
    "first": {"source": f"shapes:val?{ONE}&count=4"},
    "second": {"source": f"shapes:val?{ONE}&count=5"},
    "third": {"source": f"shapes:val?{ONE}&count=6"},
}


class Counted:
    """In place of evaluators: counts calls, stops the process at one of them."""

    def __init__(self, stop_at=None):
        self.ran, self.checked, self.stop_at = [], 0, stop_at

    def build(self, name, cfg, env, where):
        source, outer = env.open_source(cfg["source"]), self

        class Evaluator:
            def check(self, shapes):
                outer.checked += 1

            def run(self, variables):
                if name == outer.stop_at:
                    raise KeyboardInterrupt
                outer.ran.append(name)
                values = {"n": float(len(source)), "n_lo": 0.0, "n_hi": 9.0}
                values["odd"] = float("nan")
                arrays = {"index": np.arange(len(source))}
                return Result(values, {"id": name, "evaluator": "fake"}, arrays)

        return Evaluator()


@pytest.fixture(scope="module")
def model(tiny_run):
    return load.load_run(tiny_run)


@pytest.fixture
def go(model, tmp_path, monkeypatch):
    protocols = {"zero": {"type": "zero_shot"}}
    cells = cells_lib.cells({"datasets": DATASETS, "protocols": protocols})

    def run(counted, model=model):
        monkeypatch.setattr(evaluators, "build", counted.build)
        return runner.run(cells, model, tmp_path)

    return run


def test_a_stopped_suite_goes_on(go, tmp_path):
    first = Counted(stop_at="third.zero")
    with pytest.raises(KeyboardInterrupt):
        go(first)
    assert first.ran == ["first.zero", "second.zero"]
    assert first.checked == 3  # all are checked before the first one runs
    before = {p: p.read_bytes() for p in (tmp_path / "cells").iterdir()}
    again = Counted()
    about, outcomes = go(again)
    assert again.ran == ["third.zero"] and again.checked == 1
    assert all(p.read_bytes() == data for p, data in before.items())
    assert [o.values["n"] for o in outcomes] == [4, 5, 6]
    assert np.isnan(outcomes[0].values["odd"])
    assert runner.arrays(tmp_path, outcomes[1].key)["index"].tolist() == [0, 1, 2, 3, 4]
    nothing = Counted()
    assert [o.values["n"] for o in go(nothing)[1]] == [4, 5, 6]
    assert nothing.ran == [] and nothing.checked == 0
    assert not list(tmp_path.rglob("*.part*"))


def test_a_cell_killed_before_its_last_write_is_run_again(go, tmp_path):
    _, outcomes = go(Counted())
    (tmp_path / "cells" / f"{outcomes[0].key}.json").unlink()
    (tmp_path / "cells" / f"{outcomes[1].key}.json.part").write_text('{"dataset": "se')
    again = Counted()
    go(again)
    assert again.ran == ["first.zero"]
    (tmp_path / "cells" / f"{outcomes[2].key}.json").write_text('{"dataset": "th')
    with pytest.raises(UserError, match="is damaged.*delete it"):
        go(Counted())


def test_one_card_a_number(go, tmp_path, model):
    about, outcomes = go(Counted())
    names = sorted(p.name for p in (tmp_path / "cards").iterdir())
    sets = ("first", "second", "third")
    assert names == [f"{d}.zero.{n}.json" for d in sets for n in ("n", "odd")]
    card = json.loads((tmp_path / "cards" / "second.zero.n.json").read_text())
    assert (card["value"], card["low"], card["high"]) == (5.0, 0.0, 9.0)
    assert card["model"]["step"] == 2 and card["model"] == about
    assert card["key"] == outcomes[1].key and card["id"] == "second.zero"
    odd = json.loads((tmp_path / "cards" / "second.zero.odd.json").read_text())
    assert odd["value"] is None and "low" not in odd


def test_another_checkpoint_is_another_model(go, tiny_run):
    go(Counted())
    other = Counted()
    go(other, load.load_run(tiny_run, 1))
    assert len(other.ran) == 3
