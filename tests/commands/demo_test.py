import json
import shutil

from mmjax import cli


def test_demo(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "demo")  # saves the training
    argv = ["demo", "--config", "configs/clip.py:tiny", "--steps", "2"]
    argv += ["--workdir", str(tmp_path / "demo")]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "zero-shot, 64 classes" in out and "95 % interval" in out
    assert f"{tmp_path}/demo/summary.json" in out
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    for name in ("zero_shot_val", "zero_shot_unseen", "retrieval_r1"):
        assert summary[f"{name}_lo"] <= summary[name] <= summary[f"{name}_hi"]
    assert all(isinstance(value, (int, float)) for value in summary.values())
    assert summary["minutes"] > 0 and summary["steps"] == 2
    png = (tmp_path / "demo" / "zero_shot.png").read_bytes()
    assert png.startswith(b"\x89PNG")

    # Again: the same numbers, and the time it takes now is not counted.
    assert cli.main(argv) == 0
    assert json.loads((tmp_path / "demo" / "summary.json").read_text()) == summary


def test_demo_needs_its_evaluators(tmp_path, capsys):
    argv = ["demo", "--config", "configs/clip.py:vit_b32", "--workdir", str(tmp_path)]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "no evaluator 'val'" in err and err.count("\n") == 1
