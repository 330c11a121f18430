"""The time of day jumps while a run goes on."""

import os
import re
import time

import pytest

from mmjax.train import config, loop, metric_writer

STEPS = 40
# Read by Python as it starts: the time of day moves by days, every one and a half
# seconds of the clock that measures.
SHIM = """
import datetime, time
real, steady, jumps = time.time, time.monotonic, (0, 3, -2, 400, -400)

def shift():
    return 86400 * jumps[int(steady() / 1.5) % len(jumps)]

time.time = lambda: real() + shift()
time.time_ns = lambda: int(time.time() * 1e9)

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Jumping
"""


def sane(rows: list[dict]) -> None:
    """Nothing that is measured has seen the jumps, of days."""
    for row in rows:
        if "time/total" in row:
            assert 0 < row["time/total"] < 3600
            assert row["rows_per_second"] > 0 and row["step_seconds"] < 3600


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_clock_that_jumps_by_days(lab, tmp_path):
    """Orbax waits by the time of day: a jump forward inside a save fails that save.

    The run then says so in one line and goes on from the save before, when it is
    started again. Anywhere else a jump is not noticed.
    """
    workdir = tmp_path / "jumping"
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(SHIM)
    lab.whole(STEPS)
    path = f"{shim}:{os.environ.get('PYTHONPATH', '')}"
    env = {**os.environ, "PYTHONPATH": path}
    said = ""
    for _ in range(20):
        newest = lab.saved(workdir)
        attempt = lab.start(workdir, STEPS, env=env)
        code = attempt.wait()
        lab.resumed_at(attempt, newest)
        said += attempt.text()
        lab.survived("clock jumps by days")
        if code == 0:
            break
        assert code == 2 and "failed: TimeoutError" in attempt.text(), attempt.text()
        assert attempt.text().count("mmjax: ") == 1
    assert code == 0, said
    lab.same(workdir, STEPS)
    sane(metric_writer.read(workdir))
    etas = re.findall(r"eta (-?\d+)m", said)
    assert etas and all(0 <= int(minutes) < 600 for minutes in etas)
    assert lab.kept(workdir) == [39, 40]  # the newest by step, whatever their dates


@pytest.mark.faults
def test_a_clock_set_back_and_forth_in_this_process(lab, tmp_path, monkeypatch):
    """As above, for every `make test`: two saves, days apart in the wrong order."""
    real, looks = time.time, [0]

    def jumping() -> float:
        looks[0] += 1
        return real() - 86400 * looks[0]

    monkeypatch.setattr(time, "time", jumping)  # backwards; forwards is above
    overrides = ["--config.steps=5", "--config.checkpoint.every=1"]
    made = config.load("configs/clip.py:tiny", [*overrides, "--config.optim.warmup=1"])
    made.evals = type(made.evals)()
    loop.run(made, tmp_path)
    assert looks[0] > 5
    sane(metric_writer.read(tmp_path))
    assert lab.kept(tmp_path) == [4, 5]
    assert lab.leaves(tmp_path)["step"] == 5
