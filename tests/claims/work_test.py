"""The runs of a plan as processes: resumed, refused, failed and stopped.

A program in mmjax's place writes what a run leaves, at once.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmjax.claims import engine, plan, results, spec, work
from mmjax.errors import UserError
from mmjax.parallel import runtime

FAKE = """
import json, pathlib, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
given = dict(w.removeprefix("--config.").split("=", 1) for w in sys.argv if "=" in w)
out = pathlib.Path(words["--workdir"])
out.mkdir(parents=True, exist_ok=True)
lr, seed = float(given["optim.lr"]), int(given["seed"])
if lr == 13: sys.exit("mmjax: it diverged")
while lr == 99: time.sleep(0.01)
with (out / "started").open("a") as file: file.write("x")
row = {"step": 4, "test/correlation": lr + seed, "loss": 1.0}
(out / "metrics.jsonl").write_text(json.dumps(row) + chr(10))
(out / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
"""


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    monkeypatch.setattr(runtime, "child", lambda: [sys.executable, str(path)])
    monkeypatch.setattr(results, "commit", lambda: "c0ffee")


def experiment(**arms):
    checks = dict(says="b is above a", kind="difference", arms=("b", "a"))
    checks |= dict(metric="test/correlation")
    made = {name: {"overrides": given} for name, given in arms.items()}
    named = dict(claim="b is above a", source="", config="cca:tiny", arms=made)
    named |= dict(checks=(checks,), scales=dict(tiny=dict(seeds=2)))
    return spec.schema.from_mapping(spec.Experiment, named)


AB = dict(a={"optim.lr": 1.0}, b={"optim.lr": 2.5})


def run(made, folder, **how):
    how = {"title": "b", "by": "t", "name": "tiny", "jobs": 2} | how
    return engine.run(made, made.at("tiny"), folder, **how)


def test_runs_are_made_once_and_decide(tmp_path):
    folder = tmp_path / "w"
    result = run(experiment(**AB), folder)
    assert result["verdict"] == "AGREES" and result["finished"] == [4, 4]
    (found,) = result["checks"][0]["found"]
    assert (found["value"], found["low"], found["seeds"]) == (1.5, 1.5, 2)
    written = (folder / "results.json").read_bytes()
    run(experiment(**AB), folder)
    assert (folder / "results.json").read_bytes() == written
    started = [p.read_text() for p in folder.glob("runs/*/started")]
    assert started == ["x"] * 4
    page = (folder / "index.html").read_text()
    assert "AGREES" in page and "c0ffee" not in page
    held = json.loads(written)["tiny"]
    assert held["arms"]["a"]["test/correlation"]["by_seed"] == {"0": 1.0, "1": 2.0}


def test_a_folder_of_other_overrides_is_refused(tmp_path):
    run(experiment(**AB), tmp_path / "w")
    before = (tmp_path / "w" / plan.PLAN).read_bytes()
    other = experiment(a={"optim.lr": 1.0}, b={"optim.lr": 3.5})
    with pytest.raises(UserError, match="b-0 of other overrides.*lr=2.5, and .*lr=3.5"):
        run(other, tmp_path / "w")
    assert (tmp_path / "w" / plan.PLAN).read_bytes() == before
    more = run(experiment(**AB, c={"optim.lr": 4.0}), tmp_path / "w")  # arms are added
    assert more["finished"] == [6, 6]


def test_a_failed_run_ends_no_other(tmp_path):
    made = experiment(
        a={"optim.lr": 1.0}, b={"optim.lr": 13.0}, c={"optim.lr": 2, "graft.x": "{b}"}
    )
    with pytest.raises(
        UserError, match="4 of 6 runs failed .b-0: it diverged.*c-1: it s"
    ):
        run(made, tmp_path / "w")
    held = json.loads((tmp_path / "w" / "results.json").read_text())["tiny"]
    assert held["finished"] == [2, 6] and held["verdict"] == "UNDECIDED"


def test_arms_begin_after_those_they_start_from(tmp_path):
    made = experiment(b={"optim.lr": 2, "graft.x": "{a}#params"}, a={"optim.lr": 1.0})
    runs = plan.runs(made.points(made.at("tiny")), 2, tmp_path / "w")
    assert [r.name for r in runs] == ["a-0", "a-1", "b-0", "b-1"]
    assert runs[3].needs == ("a-1",)
    assert f"--config.graft.x={tmp_path}/w/runs/a-1#params" in runs[3].commands[0]
    lines = engine.lines(runs)
    assert lines[2].startswith("#") and "train --config cca:tiny" in lines[3]
    circle = experiment(a={"graft.x": "{b}"}, b={"graft.x": "{a}"})
    with pytest.raises(UserError, match="start from each other: a, b"):
        plan.runs(circle.points(circle.at("tiny")), 1, tmp_path)


def test_a_signal_reaches_the_children(tmp_path):
    made = experiment(a={"optim.lr": 99.0}, b={"optim.lr": 1.0})

    def stop():
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(work.Stopped) as stopped:
        run(made, tmp_path / "w")
    thread.join()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], check=False).returncode == 1


def test_a_grid_is_read():
    given = ["optim.lr=1e-3,3e-3", 'data.train=(("a,b", 1.0),),"c,d"']
    made = {"optim.lr": ("1e-3", "3e-3"), "data.train": ('(("a,b", 1.0),)', '"c,d"')}
    assert plan.grid(given) == made
    for wrong in (["lr"], ["lr="], ["lr=1,"], ["lr=1,1"], ["lr=1", "lr=2"]):
        with pytest.raises(UserError, match="--grid lr"):
            plan.grid(wrong)


def test_a_readme_keeps_what_is_written_by_hand(tmp_path):
    result = run(experiment(**AB), tmp_path / "w")
    out = tmp_path / "claim"
    out.mkdir()
    (out / "README.md").write_text("# Title\n\nProse.\n")
    results.publish(result, out, "mmjax reproduce x")
    first = (out / "README.md").read_text()
    assert first.startswith("# Title\n\nProse.\n\n" + results.BEGIN)
    assert "| b is above a | 0 or more | 1.500 (1.500 to 1.500) | AGREES |" in first
    (out / "README.md").write_text(first + "\nMore prose.\n")
    results.publish(result | {"verdict": "DISAGREES"}, out, "mmjax reproduce x")
    second = (out / "README.md").read_text()
    assert second == first.replace("**AGREES**", "**DISAGREES**") + "\nMore prose.\n"
    assert (out / "results_tiny.png").is_file()
