"""What the fault tests share: runs to disturb, and what is counted about them.

A run here is a process of the command line. It is disturbed, started again as often as
it takes, and must end with the parameters of the run that nobody disturbed, to the bit.
Moments are drawn from a seed (MMJAX_FAULTS_SEED, 0) and follow what the run does, not
the clock, so that a slow machine tries the same faults.
"""

import collections
import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.train import metric_writer, restore
from mmjax.train import timing as timing_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("MMJAX_FAULTS_SEED", "0"))
PATIENCE = 600.0  # seconds without the next event before a run counts as hung
MAIN = "import sys; from mmjax.cli import main; sys.exit(main(sys.argv[1:]))"
_STEP = re.compile(r"^(?:\[\d+\] )?step (\d+)/", re.M)  # led by a process number


def steps_of(steps: int) -> list[str]:
    """Overrides of a run of so many steps: saved every third, judged at the end."""
    keys = {"steps": steps, "checkpoint.every": 3, "log_every": 1, "optim.warmup": 2}
    keys |= {f"evals.{n}.every": steps for n in ("val", "unseen", "retrieval")}
    return [f"--config.{key}={value}" for key, value in keys.items()]


@dataclasses.dataclass
class Attempt:
    """One process of a run, and what it prints."""

    process: subprocess.Popen
    log: pathlib.Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def steps(self) -> list[int]:
        """The steps that it has said it did."""
        return [int(n) for n in _STEP.findall(self.text())]

    def wait(self) -> int:
        """The exit status; a process that does not end is killed and is a failure."""
        self.until(lambda: False)
        return self.process.wait()

    def until(self, happened: Callable[[], bool]) -> bool:
        """Waits for something; False if the process ends before it."""
        last, waited = time.monotonic(), 0.0
        while not happened():
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
            now = time.monotonic()
            waited += min(now - last, 1.0)  # less when we were stopped ourselves
            last = now
            if waited > PATIENCE:
                self.process.kill()
                raise AssertionError(f"nothing in {PATIENCE} s:\n{self.text()}")
        return True


def kept(workdir: pathlib.Path) -> list[int]:
    """The steps whose checkpoints are whole: only those have a plain number."""
    names = [p.name for p in (workdir / "checkpoints").glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


def saved(workdir: pathlib.Path) -> int:
    """The newest step whose checkpoint is whole; 0 where there is none."""
    return max(kept(workdir), default=0)


def saving(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written, or was when its writer died."""
    return any((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"))


def leaves(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    _, state = restore.restore(workdir, optimizer=True)
    return tree.flatten(
        jax.device_get(state.replace(rng=jax.random.key_data(state.rng)))
    )


def rows_of(workdir: pathlib.Path) -> list[dict]:
    """Rows of metrics, less what the clock decides."""
    timing = {"rows_per_second", "step_seconds", "tflops", "time/total"}
    timing |= {f"time/{kind}" for kind in timing_lib.KINDS}
    rows = metric_writer.read(workdir)
    return [{k: v for k, v in r.items() if k not in timing} for r in rows]


def kill(attempt: Attempt, signum: int = signal.SIGKILL) -> None:
    attempt.process.send_signal(signum)
    attempt.wait()


class Lab:
    """Starts runs, knows what undisturbed ones end with, and keeps the count."""

    # Test files cannot import a conftest: they find these here.
    root, seed = ROOT, SEED
    kept, saved, saving = map(staticmethod, (kept, saved, saving))
    kill, leaves = map(staticmethod, (kill, leaves))

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.counts: collections.Counter = collections.Counter()
        self.lost = 0  # steps done again that a finished checkpoint held
        self._started: list[subprocess.Popen] = []
        self._whole: dict[int, pathlib.Path] = {}
        self.startup = self.step = self.save = 0.0  # seconds, of the undisturbed run

    def command(self, workdir: pathlib.Path, steps: int) -> list[str]:
        config = ["--config", f"{ROOT}/configs/clip.py:tiny", *steps_of(steps)]
        head = [sys.executable, "-c", MAIN, "train"]
        return [*head, "--workdir", str(workdir), *config]

    def start(self, workdir: pathlib.Path, steps: int, **options) -> Attempt:
        return self.run(self.command(workdir, steps), workdir.name, **options)

    def run(self, command: list[str], name: str, **options) -> Attempt:
        """A process whose stdout and stderr go to a file."""
        self.folder.joinpath("logs").mkdir(exist_ok=True)
        log = self.folder / "logs" / f"{name}.{time.monotonic_ns()}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, **options
            )
        self._started.append(process)
        return Attempt(process, log)

    def close(self) -> None:
        """Ends what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def whole(self, steps: int) -> pathlib.Path:
        """The workdir of a run of so many steps that nobody disturbs."""
        if steps not in self._whole:
            workdir = self.folder / f"whole{steps}"
            begin = time.monotonic()
            attempt = self.start(workdir, steps)
            attempt.until(lambda: bool(attempt.steps()))
            self.startup = time.monotonic() - begin
            assert attempt.wait() == 0, attempt.text()
            rows = [r for r in metric_writer.read(workdir) if "time/total" in r][1:]
            self.step = float(np.median([r["time/total"] for r in rows]))
            self.save = float(np.max([r["time/checkpoint"] for r in rows]))
            self._whole[steps] = workdir
        return self._whole[steps]

    def finish(self, workdir: pathlib.Path, steps: int) -> Attempt:
        """Runs to the end what was disturbed, and checks what it ends with."""
        newest = saved(workdir)
        attempt = self.start(workdir, steps)
        assert attempt.wait() == 0, attempt.text()
        self.resumed_at(attempt, newest)
        self.same(workdir, steps)
        return attempt

    def resumed_at(self, attempt: Attempt, newest: int) -> None:
        """Counts the steps done again that the checkpoint of step `newest` held."""
        done = attempt.steps()
        if done:
            self.lost += max(0, newest + 1 - done[0])
            assert done[0] == newest + 1, attempt.text()

    def same(self, workdir: pathlib.Path, steps: int) -> None:
        """All arrays, and all rows of metrics, are those of the undisturbed run."""
        whole = self.whole(steps)
        want, got = leaves(whole), leaves(workdir)
        assert want.keys() == got.keys()
        for path, value in want.items():
            np.testing.assert_array_equal(got[path], value, err_msg=path)
        assert rows_of(workdir) == rows_of(whole)

    def survived(self, fault: str, times: int = 1) -> None:
        self.counts[fault] += times


_labs: list[Lab] = []


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    made = Lab(tmp_path_factory.mktemp("lab"))
    _labs.append(made)
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter):
    """The count, printed, and written where MMJAX_FAULTS_JSON says."""
    if not (_labs and _labs[0].counts):
        return
    lab, failed = _labs[0], len(terminalreporter.stats.get("failed", ()))
    summary = {
        "survived": dict(sorted(lab.counts.items())),
        "survived_in_all": sum(lab.counts.values()),
        "tests_failed": failed,
        "steps_redone_beyond_last_save": lab.lost,
        "seed": SEED,
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "jax": jax.__version__,
    }
    terminalreporter.write_sep("-", "faults survived")
    for fault, count in summary["survived"].items():
        terminalreporter.write_line(f"{count:4d}  {fault}")
    terminalreporter.write_line(
        f"{summary['survived_in_all']:4d}  in all; {lab.lost} steps redone that a "
        f"finished checkpoint held; seed {SEED}"
    )
    if "MMJAX_FAULTS_JSON" in os.environ:
        text = json.dumps(summary, indent=1) + "\n"
        pathlib.Path(os.environ["MMJAX_FAULTS_JSON"]).write_text(text)
