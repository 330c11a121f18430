"""`mmjax reproduce` and `mmjax sweep`: bad input, lists and printed commands."""

import shlex

import pytest

from mmjax import cli

SWEEP = "sweep --config cca:tiny --workdir W "


@pytest.mark.parametrize(
    "line, why",
    [
        ("reproduce co_trainin", "no claim 'co_trainin'; did you mean 'co_training'?"),
        ("reproduce", "give a CLAIM, --list or --all"),
        ("reproduce co_training --scale paper", "no --scale paper"),
        ("reproduce --all --workdir W", "--all: every claim has a --workdir"),
        (SWEEP + "--grid optim.lrr=1,2", "unknown key 'lrr'; did you mean 'lr'"),
        (SWEEP + "--grid optim.lr=fast", "--config.optim.lr: expected float"),
        (SWEEP + "--grid optim.lr", "--grid optim.lr: give KEY=VALUE,VALUE"),
        (SWEEP + "--grid seed=1,2", "--grid seed: it is given by --seeds"),
        (SWEEP + "--grid optim.lr=1 --seeds 0", "--seeds 0: give 1 or more"),
        (SWEEP + "--grid optim.lr=1 --jobs 0", "--jobs 0: give 1 or more"),
    ],
)
def test_bad_input_is_told(line, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.glob("W/runs/*"))


def test_printed_commands_are_those_of_every_run(capsys, tmp_path):
    words = f"{SWEEP}--grid optim.lr=1,2 --seeds 2 --print --config.steps=3"
    assert cli.main(words.replace("W", str(tmp_path / "w"), 1).split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    last = shlex.split(lines[-1])
    for word in ("--config.optim.lr=2", "--config.seed=1", "--config.steps=3"):
        assert word in last
    train = last[last.index("train") :]
    assert cli._parse("train", train[1:])[0].config == "cca:tiny"


def test_the_list_has_every_claim(capsys, tmp_path):
    out = tmp_path / "claims.md"
    assert cli.main(["reproduce", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "| co_training | Two views that each suffice" in shown
    assert cli.main(["reproduce", "--list", "--out", str(out)]) == 0
    assert shown in out.read_text()
