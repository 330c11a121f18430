"""Who joins whom: options, environment, and what is said when nobody comes."""

import argparse
import os
import socket
import subprocess
import sys

import pytest

from mmjax import cli
from mmjax.cli.launch import free_port
from mmjax.errors import UserError
from mmjax.parallel import distributed

ALL = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


def _args(*argv: str) -> argparse.Namespace:
    parser = cli.Parser()
    distributed.add_arguments(parser)
    return parser.parse_args(argv)


def _chosen(*argv: str, **environ: str) -> distributed.Place | None:
    return distributed.chosen(_args(*argv), environ)


def test_one_process_stays_alone():
    assert _chosen() is None
    assert _chosen(SLURM_JOB_ID="1", KUBERNETES_SERVICE_HOST="x") is None
    assert _chosen("--distributed", "off", **ALL) is None
    assert _chosen(**{**ALL, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None


def test_options_go_before_the_environment():
    assert _chosen(**ALL) == distributed.Place("10.0.0.1:8476", 4, 3)
    assert _chosen("--process", "0", **ALL) == distributed.Place("10.0.0.1:8476", 4, 0)
    ipv6 = ["--coordinator", "[::1]:80", "--processes", "2", "--process", "1"]
    assert _chosen(*ipv6) == distributed.Place("[::1]:80", 2, 1)
    assert _chosen("--distributed", "auto", **ALL) == distributed.Place(auto=True)


@pytest.mark.parametrize(
    ("argv", "environ", "what"),
    [
        ("--processes 2 --process 1", {}, "--coordinator .*all three"),
        ("--coordinator a:1", {}, "--processes .*--process "),
        ("", {"JAX_COORDINATOR_ADDRESS": "a:1"}, "--distributed off"),
        ("", {**ALL, "JAX_PROCESS_ID": "one"}, r"\$JAX_PROCESS_ID is 'one'"),
        ("--process 4", ALL, "--process 4 of --processes 4: give 0 to 3"),
        ("--process -1", ALL, "give 0 to 3"),
        ("--processes 0", ALL, "--processes 0"),
        ("--coordinator host", ALL, "HOST:PORT"),
        ("--coordinator host:70000", ALL, "HOST:PORT"),
        ("--distributed auto --process 1", {}, "auto with --process:"),
        ("--join-timeout 0", {}, "--join-timeout 0"),
    ],
)
def test_options_that_do_not_fit(argv: str, environ: dict, what: str):
    with pytest.raises(UserError, match=what):
        _chosen(*argv.split(), **environ)


def _train(*argv: str) -> subprocess.CompletedProcess:
    head = [sys.executable, "-m", "mmjax.cli", "train", "--workdir", "/nowhere"]
    head += ["--config", "configs/clip.py:tiny"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    return subprocess.run(
        [*head, *argv], capture_output=True, text=True, timeout=250, env=environ
    )


def _alone(process: int, port: int) -> list[str]:
    address = ["--coordinator", f"127.0.0.1:{port}", "--join-timeout", "2"]
    return [*address, "--processes", "2", "--process", str(process)]


def test_a_coordinator_that_is_not_there():
    port = free_port()
    done = _train(*_alone(1, port))
    assert done.returncode == 2, done.stderr
    assert f"process 1 of 2 could not reach the coordinator 127.0.0.1:{port}" in (
        done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_others_that_do_not_come():
    done = _train(*_alone(0, free_port()))
    assert done.returncode == distributed.LOST, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mmjax: process 0: not all processes arrived within 2 s")


def test_no_cluster_to_detect():
    done = _train("--distributed", "auto")
    assert done.returncode == 2, done.stderr
    assert "give --coordinator, --processes and --process" in done.stderr


def test_the_coordinator_listens_where_it_was_asked_to():
    port = free_port()
    assert distributed._listening("127.0.0.1", port) == f"127.0.0.1:{port}"
    assert distributed._listening("localhost", port) == f"127.0.0.1:{port}"
    assert distributed._listening("some-host.example", port) is None
    assert distributed._listening("192.0.2.1", port) is None  # no address of ours
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(UserError, match=f"port {port} cannot be opened here"):
            distributed._listening("127.0.0.1", port)
