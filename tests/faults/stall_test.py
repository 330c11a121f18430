"""A read that never returns, and parents that are killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

SOURCE = '''
import builtins, os
from mmjax.data import sources

def open(path: str):
    return Stalled(path)

class Stalled:
    """Drawn shapes, whose reads never return once PATH.now is there."""

    def __init__(self, path):
        self.path, self.name = path, "stalled"
        self.drawn = sources.open_source("shapes:train?size=16&count=64&objects=1")
        self.class_names = self.drawn.class_names

    def __len__(self):
        return len(self.drawn)

    def __getitem__(self, i):
        if os.path.exists(self.path + ".now"):
            with builtins.open(self.path, "rb") as pipe:  # which nobody writes to
                pipe.read()
        return self.drawn[i]

    def texts(self):
        return self.drawn.texts()

    def fingerprint(self):
        return self.drawn.fingerprint()
'''
WORKERS = """
import sys, time
from mmjax.data import pipeline
from mmjax.data.fields import image
from mmjax.data.sources import open_source

if __name__ == "__main__":
    field = image.Field(size=64, mode="squash", train_scale=(1.0, 1.0))
    source = open_source("shapes:train?size=64&count=64&objects=1")
    rows = pipeline.TrainIterator(
        source, {"image": field}, batch_size=64, seed=0, workers=2
    )
    next(rows)
    print("up", flush=True)
    time.sleep(600)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")


def ended(pid: int) -> bool:
    """Whether a process is gone, or is but waited for."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def children(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def soon(happened, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)
    return happened()


@pytest.mark.parametrize(
    ("signum", "options"),
    [
        (signal.SIGTERM, ()),
        pytest.param(signal.SIGHUP, (), marks=pytest.mark.faults),
        pytest.param(
            signal.SIGINT, ("--config.data.workers=1",), marks=pytest.mark.faults
        ),
    ],
)
def test_a_run_whose_read_hangs_can_be_stopped(lab, tmp_path, signum, options):
    sources = tmp_path / "lib/mmjax/data/sources"
    sources.mkdir(parents=True)
    (sources / "stalled.py").write_text(SOURCE)
    pipe, workdir = tmp_path / "pipe", tmp_path / "stalled"
    os.mkfifo(pipe)
    keys = [f"data.train=stalled:{pipe}", "steps=100000", "checkpoint.every=0"]
    keys += [f"evals.{name}.every=0" for name in ("val", "unseen", "retrieval")]
    command = [*lab.command(workdir, 9), *(f"--config.{key}" for key in keys)]
    path = os.pathsep.join([str(tmp_path / "lib"), str(lab.root)])
    attempt = lab.run(
        [*command, *options], "stalled", env={**os.environ, "PYTHONPATH": path}
    )
    assert attempt.until(lambda: len(attempt.steps()) >= 3), attempt.text()
    pathlib.Path(f"{pipe}.now").touch()
    time.sleep(1)
    attempt.process.send_signal(signum)
    begin = time.monotonic()
    assert attempt.wait() == 128 + signum, attempt.text()
    assert time.monotonic() - begin < 60
    last = attempt.steps()[-1]
    assert lab.saved(workdir) == last
    assert f"stopped by {signum.name}, saved step {last}" in attempt.text()
    lab.survived("stalled read")


@linux
def test_workers_end_with_a_killed_parent(lab, tmp_path):
    file = tmp_path / "workers.py"  # workers import the program they belong to
    file.write_text(WORKERS)
    attempt = lab.run([sys.executable, str(file)], "workers")
    assert attempt.until(lambda: "up" in attempt.text()), attempt.text()
    pid = attempt.process.pid

    def blocks() -> list[pathlib.Path]:
        return list(pathlib.Path("/dev/shm").glob(f"mmjax-*-{pid}-*"))

    started = children(pid)
    assert len(started) >= 2 and blocks()
    lab.kill(attempt)
    assert soon(lambda: all(map(ended, started)))
    assert soon(lambda: not blocks())
    lab.survived("kill -9 of a parent of workers")


@linux
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_launched_processes_end_with_a_killed_launcher(lab, tmp_path):
    python, _, main, *train = lab.command(tmp_path / "two", 100000)
    launch = ["launch", "--processes", "2", "--devices-per-process", "1", "--"]
    attempt = lab.run([python, "-c", main, *launch, *train], "two")
    assert attempt.until(lambda: len(attempt.steps()) >= 2), attempt.text()
    started = children(attempt.process.pid)
    started += [pid for parent in started for pid in children(parent)]
    assert len(started) >= 4
    lab.kill(attempt)
    assert soon(lambda: all(map(ended, started)))
    lab.survived("kill -9 of mmjax launch")
