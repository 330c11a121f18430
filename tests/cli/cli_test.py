"""The command line's answers to what is wrong, before anything is trained."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from mmjax import cli
from mmjax.parallel import runtime


def refused(capsys, *argv):
    """The one line that a refused command leaves on stderr."""
    assert cli.main([str(a) for a in argv]) == 2
    out = capsys.readouterr()
    assert out.err.startswith("mmjax: ") and out.err.count("\n") == 1, out.err
    assert not out.out
    return out.err


def test_overview_names_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, line in cli.verbs().items():
        assert verb in out and line in out


def test_no_verb_shows_the_overview(capsys):
    assert cli.main([]) == 2
    assert "usage: mmjax VERB" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [[v] for v in cli.verbs()] + [["data", "check"]])
def test_help_of_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*verb, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: mmjax {' '.join(verb)}" in out
    if len(verb) == 1:
        assert f"mmjax {verb[0]}" in out.partition("examples:")[2]


def test_help_loads_no_jax():
    code = (
        "import sys; from mmjax import cli; cli.main(['--help']); "
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


_TRAIN = ["train", "--config", "clip:tiny", "--workdir", "w"]
CASES = [
    (["trian"], ["no verb 'trian'", "did you mean 'train'?"]),
    (["train"], ["--config, --workdir", "mmjax train --help"]),
    (["inspect", "x", "--stpe", "3"], ["unrecognized arguments: --stpe"]),
    (["inspect", "x", "--step", "many"], ["--step", "'many'"]),
    (["inspect", "x", "--config.a=3"], ["takes no --config.KEY=VALUE"]),
    (["zeroshot", "x", "y.png", "--labels", "a"], ["two or more"]),
    (["zeroshot", "x", "y.png", "--labels", "a,b"], ["no image file", "y.png"]),
    (
        ["zeroshot", "x", "y", "--labels", "a,b", "--templates", "clip8"],
        ["'clip8'", "did you mean 'clip80'"],
    ),
    (["embed", "x", "--out", "e.npz"], ["--images, --texts"]),
    (["embed", "x", "--texts", "a", "--out", "no/e.npz"], ["no folder no"]),
    (["embed", "x", "--texts", "a.txt", "--out", "e.npz"], ["a.txt"]),
    ([*_TRAIN, "--devices", "1000"], ["--devices 1000: use 1 to 512"]),
    ([*_TRAIN, "--devices", "-1"], ["--devices -1: use 1 to 512"]),
    (["sample", "x", "a red star", "--out", "sheet"], ["'sheet'", ".png"]),
    (["complete", "x", "a.png", "a", "--out", "a.pmg"], ["'a.pmg'", ".png"]),
    (["zeroshot", "x", "a.png", "--labels", "a,b", "--png", "b"], ["'b'", ".png"]),
    (["index", "search", "x", "--text", "a", "--out", "b.txt"], ["'b.txt'", ".png"]),
    (["align", "a.npy", "b.npy", "--out", "path"], ["'path'", ".png"]),
    (["data", "chekc"], ["chekc", "check"]),
    (["data", "check", "shaps:train"], ["shaps"]),
    (["data", "check", "shapes:trian"], ["trian", "train"]),
    (["data", "bpe", "shapes:val", "--out", "x.json"], ["--vocab-size"]),
]


@pytest.mark.parametrize(("argv", "parts"), CASES, ids=lambda x: " ".join(x)[:40])
def test_bad_arguments(argv, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, *argv)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "argv",
    [
        ["inspect", "{}"],
        ["eval", "{}"],
        ["embed", "{}", "--texts", "a", "--out", "e.npz"],
    ],
    ids=lambda x: x[0],
)
def test_a_workdir_that_is_none(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "absent", tmp_path):
        message = refused(capsys, *[a.format(place) for a in argv])
        assert str(place) in message and "run.json" in message


TRAIN = ["train", "--config", "configs/clip.py:tiny", "--workdir"]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["config.optim: unknown key 'lrr'", "did you mean 'lr'?"]),
        ("steps=ten", ["expected int", "'ten' (str)"]),
        ("batch_size=15", ["batch 15 must split over 4 devices: use 12 or 16"]),
        ("task.text.width=wide", ["expected int", "'wide'"]),
        ("data.train=webdataset:/no/such-*.tar", ["/no/such-*.tar"]),
        ("evals.val.type=zero_shoot", ["'zero_shoot'", "did you mean 'zero_shot'"]),
        ("optim.freeze=('imagee/',)", ["'imagee/'", "matches none"]),
    ],
)
def test_bad_configs(override, parts, capsys, tmp_path):
    message = refused(capsys, *TRAIN, tmp_path / "w", f"--config.{override}")
    for part in parts:
        assert part in message


def test_no_such_config(capsys, tmp_path):
    argv = ["train", "--workdir", tmp_path / "w", "--config"]
    assert "no config file configs/clap.py" in refused(capsys, *argv, "configs/clap.py")
    assert "no preset 'tinny'" in refused(capsys, *argv, "configs/clip.py:tinny")


def test_ctrl_c_and_closed_pipes(monkeypatch, capsys):
    def stop(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", stop)
    assert cli.main(["inspect"]) == 130
    assert capsys.readouterr().err == "mmjax: interrupted\n"


def test_a_stopped_run_exits_as_its_signal_says(monkeypatch, capsys, tmp_path):
    from mmjax.train import loop

    def stop(*args, **kwargs):
        raise loop.Interrupted(signal.SIGTERM, 3)

    monkeypatch.setattr(loop, "run", stop)
    assert cli.main([*TRAIN, str(tmp_path)]) == 143
    err = capsys.readouterr().err
    assert "saved step 3" in err and err.count("\n") == 1
    assert cli.main(["demo", "--workdir", str(tmp_path / "demo")]) == 143


LATE = """
import sys, types
from mmjax import cli

cli.main(["--version"])
for text in ("Event loop is closed", "a real one"):
    error = RuntimeError(text)
    sys.excepthook(RuntimeError, error, None)
    sys.unraisablehook(types.SimpleNamespace(
        exc_type=RuntimeError, exc_value=error, exc_traceback=None, err_msg=None,
        object=None))
"""


def test_a_loaders_late_callbacks_say_nothing_and_others_do():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    # the second hook wants its own type from Python: that it was called is enough
    assert "Event loop is closed" not in done.stderr
    assert done.stderr.count("RuntimeError: a real one") == 1
    assert "UnraisableHookArgs" in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_a_closed_stderr_ends_nothing(closed, tmp_path):
    main = "import sys; from mmjax.cli import main; code = main(sys.argv[1:]); "
    main += "print('code', code, flush=True); import os; os._exit(0)"
    shell = f'exec "$0" -c "$1" data check shapes:trian {closed}'
    argv = ["sh", "-c", shell, sys.executable, main]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "code 2\n"


def test_what_the_system_refuses_is_one_line(monkeypatch, capsys):
    def refuse(argv):
        raise PermissionError(13, "Permission denied", "/some/place")

    monkeypatch.setattr(cli, "_run", refuse)
    assert cli.main(["inspect"]) == 2
    said = "mmjax: /some/place: Permission denied; give another place, or mend this one"
    assert capsys.readouterr().err == f"{said}\n"


_LAUNCH = ["launch", "--processes", "1", "--"]


@pytest.mark.parametrize("before", [[], _LAUNCH], ids=["alone", "launched"])
def test_nothing_is_imported_from_the_working_directory(before, tmp_path):
    """Nor in processes that are launched; the config is refused after all imports."""
    for name in ("numpy", "jax", "ml_collections", "mmjax_configs", "orbax"):
        text = "open('taken', 'a').write(__name__)"
        (tmp_path / f"{name}.py").write_text(text)
    argv = [*before, "train", "--config", "clip:none", "--workdir", "w"]
    done = subprocess.run(
        [sys.executable, "-m", "mmjax.cli", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "no preset 'none'" in done.stderr, done.stderr
    assert not (tmp_path / "taken").exists()


def test_a_closed_stderr_ends_no_training(tmp_path, monkeypatch):
    """Every line to it fails, as to a terminal that is gone."""
    ours, theirs = os.pipe()
    os.close(ours)
    argv = ["train", "--config", "classifier:tiny", "--workdir", str(tmp_path / "w")]
    argv += ["--config.steps=2", "--config.evals.val.source="]  # for time
    gone = os.fdopen(theirs, "w", buffering=1)
    with pytest.raises(BrokenPipeError):
        print("x", file=gone)
    monkeypatch.setattr(sys, "stderr", gone)
    assert cli.main(argv) == 0
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):
        gone.close()
    assert os.listdir(tmp_path / "w" / "checkpoints") == ["2"]


def test_commands_to_paste_name_the_mmjax_that_was_started(monkeypatch, tmp_path):
    for name in ("bin/mmjax", "other/mmjax"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    cases = {
        "bin/mmjax": "mmjax",  # the one that the shell finds
        "other/mmjax": "other/mmjax",
        "a folder/mmjax": "'a folder/mmjax'",
        f"{pathlib.Path(cli.__file__).parent}/__main__.py": (
            f"{sys.executable} -m mmjax.cli"
        ),
        "/usr/bin/pytest": "mmjax",
    }
    for started, pasted in cases.items():
        monkeypatch.setattr(sys, "argv", [started])
        assert runtime.command() == pasted
