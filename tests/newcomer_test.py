"""Four families as new files alone, below tests/newcomer: nothing of mmjax is edited.

Each trains through `mmjax train`, is killed and resumed, planned, and equal under one
device, a mesh and pmap.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRESETS = ("two_views", "sequences", "players", "moments")
LAYOUTS = {
    "mesh": ["--config.parallel.mesh.data=2", "--config.parallel.mesh.fsdp=2"],
    "pmap": ["--config.parallel.mode=pmap"],
}
SGD = ["--config.optim.name=sgd", "--config.optim.momentum=0.0"]


def mmjax(*args, devices=1, code=0):
    path = [str(ROOT / "tests/newcomer"), os.environ.get("PYTHONPATH", "")]
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path), "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "mmjax.cli", *args]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def config(preset):
    return ["--config", f"tests/newcomer/configs/newcomers.py:{preset}"]
