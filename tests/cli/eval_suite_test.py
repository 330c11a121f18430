"""mmjax eval SUITE WORKDIR, on a model of two steps."""

import json
import shutil

import pytest

from mmjax import cli

SUITE = "configs/suites.py:tiny"
TABLE = """acc1,dataset,model,pretrained,task
0.9,shapes,B,x,zeroshot_classification
0.0,shapes,C,y,zeroshot_classification
"""


@pytest.fixture(scope="module")
def results(tiny_run, tmp_path_factory):
    """A folder of the tiny suite's results on the checkpoint of step 1."""
    out = tmp_path_factory.mktemp("suite")
    checkpoint = tiny_run / "checkpoints" / "1"
    assert cli.main(["eval", SUITE, str(checkpoint), "--out", str(out)]) == 0
    return out


def test_a_suite_writes_cards_tables_and_figures(results):
    summary = json.loads((results / "summary.json").read_text())
    assert summary["suite"] == "tiny" and summary["model"]["step"] == 1
    protocols = {cell["protocol"] for cell in summary["cells"]}
    assert protocols == {
        "zero_shot",
        "bare_name",
        "robustness",
        "calibration",
        "modality_gap",
        "retrieval",
        "linear_probe",
    }
    card = json.loads((results / "cards/shapes.zero_shot.top1.json").read_text())
    assert card["value"] == card["value"] and card["low"] <= card["value"]
    assert card["model"]["step"] == 1 and card["templates"]["sha256"]
    assert card["class_names"]["count"] == 64 and card["interval"]["seed"] == 0
    figures = {p.stem for p in (results / "figures").iterdir()}
    own = ("robustness", "calibration", "modality_gap")
    assert figures == {"overview", *(f"shapes.{name}" for name in own)}
    text = (results / "summary.md").read_text()
    assert "zero_shot: top1" in text and "(figures/overview.png)" in text


def test_nothing_is_run_again(results, tiny_run, capsys):
    cells = {p: p.stat().st_mtime_ns for p in (results / "cells").iterdir()}
    argv = ["eval", SUITE, str(tiny_run), "--step", "1", "--out", str(results)]
    assert cli.main([*argv, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["suite"] == "tiny"
    assert "7 of 7 are in" in shown.err
    assert {p: p.stat().st_mtime_ns for p in (results / "cells").iterdir()} == cells


def test_beside_published(results, capsys, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(TABLE)
    argv = ["eval", "compare", str(results), "--reference", str(table)]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "## Beside t.csv" in out and "| B x | 0.900 |" in out
    assert out.index("this run") < out.index("B x") < out.index("C y")


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([SUITE, "RUN", "--evals", "val"], "--evals: a suite says itself"),
        (["RUN", "--reference", "t.csv"], "--reference: it is for suites"),
        ([SUITE, "RUN", "RUN"], "give [SUITE] WORKDIR"),
        (["configs/suites.py:tinny", "RUN"], "no preset 'tinny'"),
        ([SUITE, "RUN/checkpoints/1", "--step", "2"], "--step says 2"),
        ([SUITE, "RUN/checkpoints/7"], "no checkpoint of step 7"),
        ([SUITE, "RUN", "--reference", "nowhere.csv"], "cannot read nowhere.csv"),
        (["compare", "RUN"], "needs --reference"),
        (["compare", "RUN", "--reference", "t.csv"], "holds no summary.json"),
        (
            [SUITE, "RUN", "--config.datasets.shapes.val=nosuch:x"],
            "unknown kind of data",
        ),
    ],
)
def test_what_is_refused(argv, part, tiny_run, capsys):
    given = [a.replace("RUN", str(tiny_run)) for a in argv]
    assert cli.main(["eval", *given]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_code_that_only_a_run_names_is_not_imported(tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    saved = json.loads((run / "run.json").read_text())
    config = saved["config"]
    config = json.loads(config) if isinstance(config, str) else config
    config["evals"]["theirs"] = {"type": "sly_lab.judge", "source": "x"}
    as_text = isinstance(saved["config"], str)
    saved["config"] = json.dumps(config) if as_text else config
    (run / "run.json").write_text(json.dumps(saved))
    (tmp_path / "sly_lab").mkdir()
    (tmp_path / "sly_lab" / "judge.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for more in ([], ["--config.evals.theirs.limit=3"], ["--evals", "theirs"]):
        assert cli.main(["eval", str(run), *more]) == 2
    assert cli.main(["eval", str(run), "--evals", "val"]) == 0
    with pytest.raises(SystemExit, match="imported"):
        trusted = "--config.evals.theirs.type=sly_lab.judge"
        cli.main(["eval", str(run), "--evals", "theirs", trusted])
