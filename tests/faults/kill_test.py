"""kill -9 at random moments, and the signals that ask a run to stop."""

import random
import signal
import time

import pytest

LONG = 120  # steps: more than all the attempts below do together
KILLS = ("starting", "step", "save")


@pytest.mark.faults
@pytest.mark.timeout(3000)
def test_a_run_killed_27_times_ends_as_if_it_never_was(lab, tmp_path):
    """Nine times each while it starts, between saves, and once a save has begun."""
    workdir, rng = tmp_path / "killed", random.Random(f"kill {lab.seed}")
    lab.whole(LONG)
    moments = [(kind, rng.random(), rng.random()) for kind in KILLS for _ in range(9)]
    rng.shuffle(moments)
    in_save = 0
    for number, (kind, first, second) in enumerate(moments):
        newest = lab.saved(workdir)
        attempt = lab.start(workdir, LONG)
        if kind == "starting":
            # On a machine that others use too, no start is as long as the next.
            end = time.monotonic() + first * lab.startup
            attempt.until(lambda a=attempt, e=end: a.steps() or time.monotonic() > e)
        else:
            least = 1 + int(3 * first)
            attempt.until(lambda a=attempt, n=least: len(a.steps()) >= n)
        if kind == "save":
            attempt.until(lambda: lab.saving(workdir))
        time.sleep(second * (lab.save if kind == "save" else lab.step))
        lab.kill(attempt)
        assert attempt.process.returncode == -signal.SIGKILL, attempt.text()
        # One that was killed early may have left what a save before it left there.
        hit = bool(attempt.steps()) and lab.saving(workdir)
        in_save += hit
        print(f"kill {number + 1} ({kind}): after step {attempt.steps()[-1:]}", hit)
        lab.resumed_at(attempt, newest)
        lab.survived("kill -9 during a save" if hit else f"kill -9 ({kind})")
    lab.finish(workdir, LONG)
    assert in_save >= 3


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_a_run_that_is_asked_to_stop_saves_where_it_is(lab, tmp_path):
    workdir, rng = tmp_path / "stopped", random.Random(f"stop {lab.seed}")
    lab.whole(LONG)
    signals = [signal.SIGTERM, signal.SIGINT] * 3
    for signum in signals:
        newest = lab.saved(workdir)
        attempt = lab.start(workdir, LONG)
        least = 1 + int(3 * rng.random())
        attempt.until(lambda a=attempt, n=least: len(a.steps()) >= n)
        time.sleep(rng.random() * lab.step)
        lab.kill(attempt, signum)
        assert attempt.process.returncode == 128 + signum, attempt.text()
        lab.resumed_at(attempt, newest)
        last = attempt.steps()[-1]
        assert lab.saved(workdir) == last
        said = f"stopped by {signum.name}, saved step {last}; run the same command"
        assert said in attempt.text() and "Traceback" not in attempt.text()
        lab.survived(signum.name)
    lab.finish(workdir, LONG)


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_a_stop_while_starting_or_twice_loses_nothing(lab, tmp_path):
    workdir, rng = tmp_path / "early", random.Random(f"early {lab.seed}")
    lab.whole(LONG)
    for signum in (signal.SIGTERM, signal.SIGINT):
        newest = lab.saved(workdir)
        attempt = lab.start(workdir, LONG)
        time.sleep(rng.random() * lab.startup)
        lab.kill(attempt, signum)
        assert attempt.process.returncode != 0
        lab.resumed_at(attempt, newest)
        lab.survived(f"{signum.name} while starting")
    newest = lab.saved(workdir)
    attempt = lab.start(workdir, LONG)
    attempt.until(lambda: len(attempt.steps()) >= 4)
    attempt.process.send_signal(signal.SIGINT)
    lab.kill(attempt, signal.SIGINT)  # at once, whatever it is doing
    assert attempt.process.returncode == 130, attempt.text()
    lab.resumed_at(attempt, newest)
    lab.survived("SIGINT twice")
    lab.finish(workdir, LONG)
