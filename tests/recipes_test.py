"""The launch recipes of docs/launch, run as far as one machine allows."""

import os
import pathlib
import re
import shlex
import stat
import subprocess
import sys

import pytest
import yaml

from mmjax import cli
from mmjax.cli import launch, train
from mmjax.cli.launch import free_port
from mmjax.train import metric_writer

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "docs" / "launch"
TINY = ("--config.steps=4", "--config.evals.retrieval.every=0")

# Runs its command for two tasks, as srun does where a job has two.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do
  SLURM_JOB_ID=$PORT_AS_JOB SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 \\
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NUM_NODES=1 "$@" & pids[i]=$!
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"""


def _container() -> dict:
    _, job = yaml.safe_load_all((LAUNCH / "job.yaml").read_text())
    return job["spec"]["template"]["spec"]["containers"][0]


def test_recipes_use_options_that_exist():
    options = set()
    for verb in (train, launch):
        known = cli.Parser()
        verb.add_arguments(known)
        options |= set(known._option_string_actions)
    for path in ("job.yaml", "slurm.sh", "tpu_vm.sh", "README.md"):
        text = (LAUNCH / path).read_text().replace("\\\n", " ")
        text = re.sub(r"\n +(?=--)", " ", text)
        commands = re.findall(r'mmjax"?,? (?:train|launch)[^\n`]*', text, re.IGNORECASE)
        assert commands, path
        for option in re.findall(r"(--[a-z][a-z-]+)(?![a-z.-])", " ".join(commands)):
            assert option in options, f"{path}: {option}"


def test_the_job_fits_itself():
    service, job = yaml.safe_load_all((LAUNCH / "job.yaml").read_text())
    spec = job["spec"]
    env = {e["name"]: e["value"] for e in _container()["env"]}
    assert spec["completions"] == spec["parallelism"] == int(env["JAX_NUM_PROCESSES"])
    name, subdomain = job["metadata"]["name"], spec["template"]["spec"]["subdomain"]
    assert env["JAX_COORDINATOR_ADDRESS"].startswith(f"{name}-0.{subdomain}:")
    assert subdomain == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    rule = spec["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert rule["containerName"] == _container()["name"]


@pytest.mark.parametrize("name", ["slurm.sh", "tpu_vm.sh"])
def test_scripts_name_what_they_miss(name: str):
    environ = {k: v for k, v in os.environ.items() if k not in ("WORKDIR", "NAME")}
    command = ["bash", LAUNCH / name]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search("WORKDIR: a folder|NAME: the TPU", done.stderr)


def _program(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _mmjax(folder: pathlib.Path) -> pathlib.Path:
    python = shlex.quote(sys.executable)
    _program(folder / "mmjax", f'#!/bin/sh\nexec {python} -m mmjax.cli "$@"\n')
    return folder / "mmjax"


@pytest.mark.hosts
@pytest.mark.timeout(900)
def test_slurm_script_with_a_stand_in_for_srun(tmp_path: pathlib.Path):
    _program(tmp_path / "srun", SRUN)
    environ = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MMJAX": str(_mmjax(tmp_path)),
        "WORKDIR": str(tmp_path / "run"),
        "CONFIG": "configs/clip.py:tiny",
        # JAX makes the port of the job's number
        "PORT_AS_JOB": "4242",
    }
    command = ["bash", LAUNCH / "slurm.sh", "--devices", "2", *TINY]
    subprocess.run(command, env=environ, cwd=ROOT, check=True)
    assert metric_writer.read(tmp_path / "run")[-1]["step"] == 4


@pytest.mark.hosts
@pytest.mark.timeout(900)
def test_the_jobs_command_with_the_variables_of_a_job(tmp_path: pathlib.Path):
    container = _container()
    (text,) = container["args"]
    for old, new in (
        ("clip.py:vit_b32", "clip.py:tiny --devices 2 " + " ".join(TINY)),
        ("/runs/b32", str(tmp_path / "run")),
    ):
        assert old in text
        text = text.replace(old, new)
    environ = {e["name"]: e["value"] for e in container["env"]}
    environ["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free_port()}"
    _mmjax(tmp_path)
    environ = {**os.environ, **environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    both = [
        subprocess.Popen(
            [*container["command"], text],
            env={**environ, "JOB_COMPLETION_INDEX": str(i)},
            cwd=ROOT,
        )
        for i in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert metric_writer.read(tmp_path / "run")[-1]["step"] == 4
