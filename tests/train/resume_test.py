"""10 + 10 steps with a kill -9 between equal 20 steps, bit for bit."""

import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import lock, loop, metric_writer, restore, run_file
from mmjax.train import timing as timing_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TWENTY = (
    "--config.steps=20",
    "--config.checkpoint.every=10",
    "--config.log_every=1",
    "--config.evals.val.every=20",
    "--config.evals.unseen.every=20",
    "--config.evals.retrieval.every=20",
)


def _command(workdir: pathlib.Path) -> list[str]:
    code = "import sys; from mmjax.cli import main; sys.exit(main(sys.argv[1:]))"
    config = ["--config", f"{ROOT}/configs/clip.py:tiny", *TWENTY]
    head = [sys.executable, "-c", code, "train"]
    return [*head, "--workdir", str(workdir), *config]


def _leaves(workdir: pathlib.Path) -> dict:
    from mmjax import tree

    _, state = restore.restore(workdir, optimizer=True)
    host = jax.device_get(state.replace(rng=jax.random.key_data(state.rng)))
    return tree.flatten(host)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("whole")
    subprocess.run(_command(workdir), check=True, cwd=ROOT)
    return workdir


def _wait_for(workdir: pathlib.Path, step: int, process: subprocess.Popen) -> None:
    for _ in range(4000):
        rows = metric_writer.read(workdir)
        if rows and rows[-1]["step"] >= step:
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in 200 s")


def test_kill_and_resume_is_bit_equal(whole: pathlib.Path, tmp_path: pathlib.Path):
    process = subprocess.Popen(_command(tmp_path), cwd=ROOT)
    _wait_for(tmp_path, 11, process)
    while not (tmp_path / "checkpoints" / "10").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "checkpoints" / "20").exists()
    subprocess.run(_command(tmp_path), check=True, cwd=ROOT)

    want, got = _leaves(whole), _leaves(tmp_path)
    assert want.keys() == got.keys()
    assert any("ema" in path for path in want)
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)
    timing = {"rows_per_second", "step_seconds", "tflops", "time/total"}
    timing |= {f"time/{kind}" for kind in timing_lib.KINDS}
    before = [r for r in metric_writer.read(whole)]
    after = [r for r in metric_writer.read(tmp_path)]
    strip = [{k: v for k, v in r.items() if k not in timing} for r in before]
    assert strip == [{k: v for k, v in r.items() if k not in timing} for r in after]


def test_second_process_is_refused(whole: pathlib.Path):
    with lock.lock(whole), pytest.raises(UserError, match="in use by process"):
        with lock.lock(whole):
            pass


def test_interrupt_saves_and_exits_130(tmp_path: pathlib.Path):
    long = [a.replace("steps=20", "steps=100000") for a in _command(tmp_path)]
    process = subprocess.Popen(long, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path, 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    saved = max(int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*"))
    assert saved == metric_writer.read(tmp_path)[-1]["step"]


@pytest.mark.long
def test_full_disk_is_one_message_and_keeps_what_was_saved(tmp_path: pathlib.Path):
    whole, full = tmp_path / "whole", tmp_path / "full"
    short = [a.replace("steps=20", "steps=10") for a in _command(whole)]
    subprocess.run(short, check=True, cwd=ROOT)

    def small_files():  # what a write beyond the limit raises, a full disk raises
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    shutil.copytree(whole, full)
    before = sorted(p.name for p in (full / "checkpoints").iterdir())
    result = subprocess.run(
        _command(full), cwd=ROOT, preexec_fn=small_files, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stderr
    assert "the disk is full. step 10 is intact" in result.stderr
    # TensorStore's own threads may print tracebacks beside it (their event loop is
    # closed by then), so the message is not yet alone.
    after = {p.name for p in (full / "checkpoints").iterdir()}
    assert set(before) <= after and "20" not in after


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("--config.task.act=gelu", "config.task.act was quick_gelu"),
        ("--config.batch_size=32", "config.batch_size was 16"),
        ("--config.data.fields.tokens.vocab_size=519", "tokenizer"),
    ],
)
def test_resume_of_another_run_is_refused(whole, override: str, what: str):
    config = config_lib.load("configs/clip.py:tiny", [*TWENTY, override])
    with pytest.raises(UserError, match=what):
        loop.run(config, whole)


def _short(*more: str):
    """A run of three steps that evaluates nothing."""
    keys = ("steps=3", "checkpoint.every=0", "optim.warmup=1", *more)
    made = config_lib.load("configs/clip.py:tiny", [f"--config.{k}" for k in keys])
    made.evals = type(made.evals)()
    return made


def test_the_last_step_is_saved_and_fewer_steps_are_refused(tmp_path, capsys):
    loop.run(_short(), tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")] == ["3"]
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match="steps is 2, and .* at step 3 already: give"):
        loop.run(_short("steps=2"), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before
    capsys.readouterr()
    loop.run(_short(), tmp_path)
    assert "step 3 of 3 is done already" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder_of_checkpoints(tmp_path):
    home = tmp_path / "home"
    folder = f"checkpoint.folder={home}"
    loop.run(_short(folder), tmp_path / "a")
    run = run_file.read(home)["run"]
    assert run_file.read(tmp_path / "a")["run"] == run
    with pytest.raises(
        UserError, match=f"holds checkpoints of another run.*{tmp_path}/a"
    ):
        loop.run(_short(folder, "steps=4"), tmp_path / "b")
    assert run_file.read(home)["run"] == run
    with lock.lock(home), pytest.raises(UserError, match="folder .*in use by process"):
        loop.run(_short(folder), tmp_path / "a")


def test_batch_that_does_not_divide_names_the_fix():
    layout = parallel.Layout(devices=jax.devices()[:4])
    with pytest.raises(UserError, match="batch 18 must split over 4 .* use 16 or 20"):
        layout.check_batch(18)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (
            {"mesh": parallel.MeshConfig(data=3)},
            "of 3 devices and 4 are here: use data=4",
        ),
        (
            {"mesh": parallel.MeshConfig(fsdp=3)},
            "of 3 x n devices and 4 are here: use data=2, fsdp=2",
        ),
        ({"mode": "pmap", "mesh": parallel.MeshConfig(fsdp=2)}, "data-parallel only"),
        ({"mode": "xmap"}, "use jit or pmap"),
    ],
)
def test_meshes_that_do_not_fit(config: dict, what: str):
    with pytest.raises(UserError, match=what):
        parallel.Layout(parallel.ParallelConfig(**config), jax.devices()[:4])


def test_divergence_names_step_and_tensor(tmp_path: pathlib.Path):
    config = config_lib.load(
        "configs/clip.py:tiny",
        [*TWENTY, "--config.optim.lr=1e30", "--config.optim.name=sgd"],
    )
    with pytest.raises(loop.Diverged, match=r"step \d+ .*first bad tensor|not finite"):
        loop.run(config, tmp_path)


@pytest.mark.parametrize(
    ("done", "every", "total", "want"),
    [(10, 10, 100, True), (9, 10, 100, False), (7, 10, 7, True), (7, 0, 7, False)],
)
def test_due(done: int, every: int, total: int, want: bool):
    assert loop.due(done, every, total) is want
