"""A sweep killed at random moments gives the results of one that never was."""

import os
import random
import signal
import subprocess
import time

import pytest

from mmjax.parallel import runtime

SWEEP = ("sweep", "--config", "cca:tiny", "--grid", "optim.lr=1e-3,3e-3")
SWEEP += ("--seeds", "2", "--jobs", "2", "--workdir")


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_a_sweep_killed_five_times_has_the_same_results(tmp_path):
    seed = os.environ.get("MMJAX_FAULTS_SEED", "0")
    rng, command = random.Random(f"sweep {seed}"), [*runtime.child(), *SWEEP]
    begin = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    took = time.monotonic() - begin
    killed = tmp_path / "killed"
    for _ in range(5):
        process = subprocess.Popen(
            [*command, killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.1, 0.6) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1)  # the children end with it
        left = subprocess.run(["pgrep", "-f", str(killed)], check=False)
        assert left.returncode == 1
    subprocess.run([*command, killed], check=True, capture_output=True)
    whole = (tmp_path / "whole" / "results.json").read_bytes()
    assert (killed / "results.json").read_bytes() == whole
