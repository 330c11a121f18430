"""A host that dies under a run of two processes."""

import os
import pathlib
import shutil
import signal
import sys
import time

import numpy as np
import pytest

STEPS = 120
SLOWEST = 60.0  # seconds that the other may take to notice


def launched(lab, workdir: pathlib.Path) -> list[str]:
    """`mmjax launch` of two processes, a device each."""
    python, _, main, *train = lab.command(workdir, STEPS)
    launch = ["launch", "--processes", "2", "--devices-per-process", "1", "--"]
    return [python, "-c", main, *launch, *train]


def children(parent: int) -> list[int]:
    """Process ids of a process' children, in the order they were started."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(folder.name))
    return sorted(found)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_killed_host_ends_the_run_and_a_restart_goes_on(mode, lab, tmp_path):
    whole, workdir = tmp_path / "two", tmp_path / "lost"
    compiled = f"--config.parallel.mode={mode}"
    attempt = lab.run([*launched(lab, whole), compiled], "two")
    assert attempt.wait() == 0, attempt.text()
    for victim in (1, 0):  # the one that coordinates last
        newest = lab.saved(workdir)
        attempt = lab.run([*launched(lab, workdir), compiled], "lost")
        attempt.until(lambda a=attempt: len(a.steps()) >= 5)
        os.kill(children(attempt.process.pid)[victim], signal.SIGKILL)
        begin = time.monotonic()
        assert attempt.wait() not in (0, None), attempt.text()
        seconds = time.monotonic() - begin
        print(f"process {victim} killed: the other ended {seconds:.0f} s later")
        said = attempt.text()
        assert f"mmjax: process {victim} ended with status 137" in said, said
        assert "Traceback" not in said, said
        assert seconds < SLOWEST
        lab.resumed_at(attempt, newest)
        lab.survived(f"one of two processes killed, {mode}")
    newest = lab.saved(workdir)
    attempt = lab.run([*launched(lab, workdir), compiled], "lost")
    assert attempt.wait() == 0, attempt.text()
    lab.resumed_at(attempt, newest)
    want, got = lab.leaves(whole), lab.leaves(workdir)
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_damage_that_one_host_alone_reads_sends_both_to_the_one_before(lab, tmp_path):
    """Each host reads its own shards: it has to tell the other what it found."""
    whole, workdir = tmp_path / "whole", tmp_path / "damaged"
    split = ["--config.parallel.mesh.data=1", "--config.parallel.mesh.fsdp=2"]
    few = [*split, "--config.steps=9"]
    attempt = lab.run([*launched(lab, whole), *few], "whole")
    assert attempt.wait() == 0, attempt.text()
    shutil.copytree(whole, workdir)
    for file in (workdir / "checkpoints/9/state/ocdbt.process_1/d").iterdir():
        os.truncate(file, file.stat().st_size // 2)
    attempt = lab.run([*launched(lab, workdir), *few], "damaged")
    assert attempt.wait() == 0, attempt.text()
    said = attempt.text()
    assert "checkpoint of step 9" in said and "going on from step 6" in said, said
    assert (workdir / "damaged/9").exists()
    assert attempt.steps()[0] == 7
    want, got = lab.leaves(whole), lab.leaves(workdir)
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)
    lab.survived("checkpoint damaged for one of two processes")
