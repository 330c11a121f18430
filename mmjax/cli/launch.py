"""Runs `mmjax train` or `mmjax eval` as several processes on this machine.

They are one run, as if each were on a host of its own: for trying a pod's command, or
one process for each accelerator. Each line of their output is led by their number.
When one of them fails the others are stopped. SIGINT, SIGTERM and SIGHUP are passed on,
and the run saves and ends as it does with one process. They listen to this machine
alone, and end with this command, however it ends.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from mmjax.errors import UserError
from mmjax.parallel import distributed, runtime

EXAMPLE = """examples:
  mmjax launch --processes 2 --devices-per-process 4 -- \\
      train --config configs/clip.py:tiny --workdir runs/two
"""
VERBS = ("train", "eval")
GRACE = 45  # seconds to end in: more than JAX takes to notice a lost process
_STOPPED = tuple(128 + signum for signum in distributed.STOP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, required=True, metavar="N")
    text = "show each process N virtual CPU devices"
    parser.add_argument(
        "--devices-per-process", type=int, default=0, metavar="N", help=text
    )
    text = "a command of mmjax"
    parser.add_argument("command", nargs="+", metavar="-- VERB ...", help=text)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    if args.processes < 1:
        raise UserError(f"--processes {args.processes}: give 1 or more")
    if args.command[0] not in VERBS:
        raise UserError(
            f"mmjax launch runs {' or '.join(VERBS)}, not {args.command[0]!r}: the "
            "other verbs run as one process"
        )
    base = [*runtime.child(), *args.command, *args.overrides]
    if args.devices_per_process:
        base += ["--devices", str(args.devices_per_process)]
    address = f"127.0.0.1:{free_port()}"
    commands = [
        [*base, "--coordinator", address]
        + ["--processes", str(args.processes), "--process", str(number)]
        for number in range(args.processes)
    ]
    return together(commands)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(commands: Sequence[Sequence[str]]) -> int:
    """Runs all commands at once, to the end of the last, and gives one exit code.

    0 where all succeed; else the code of the first that failed (128 + n for one ended
    by signal n), or of the signal that this process was sent.
    """
    children: list[subprocess.Popen] = []
    ours, theirs = os.pipe()  # its end tells them of ours, even by SIGKILL
    about = {"PYTHONUNBUFFERED": "1", distributed.LAUNCHER: str(ours)}
    with _passing_on(children) as received:
        try:
            for command in commands:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # a terminal's Ctrl-C comes once, from here
                    env={**os.environ, **about},
                    pass_fds=(ours,),
                )
                children.append(child)
            threads = _streams(children)
            first = _wait(children)
        finally:
            for child in children:
                child.kill()
            os.close(ours)
            os.close(theirs)
        for thread in threads:
            thread.join()
    if first is None:
        return 0
    return 128 + received[0] if received else _code(first)


@contextlib.contextmanager
def _passing_on(children: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Sends the children what this process is sent; yields the list of it."""
    received: list[int] = []

    def handler(signum: int, frame: object) -> None:
        received.append(signum)
        for child in children:
            child.send_signal(signum)

    old = distributed.on_stop(handler)
    try:
        yield received
    finally:
        for signum, previous in old.items():
            signal.signal(signum, previous)


def _streams(children: Sequence[subprocess.Popen]) -> list[threading.Thread]:
    """Threads that copy the children's output, each line led by the child's number."""
    lock, threads = threading.Lock(), []

    def copy(number: int, source: IO[str], name: str) -> None:
        for line in source:
            with lock:  # sys.stdout may be another by now, under a test
                out = getattr(sys, name)
                with contextlib.suppress(OSError, ValueError):  # closed: read on
                    out.write(f"[{number}] {line.rstrip()}\n")
                    out.flush()

    for number, child in enumerate(children):
        for name in ("stdout", "stderr"):
            args = number, getattr(child, name), name
            threads.append(threading.Thread(target=copy, args=args, daemon=True))
            threads[-1].start()
    return threads


def _wait(children: Sequence[subprocess.Popen]) -> subprocess.Popen | None:
    """Waits for all; stops the rest once one has failed, which it returns."""
    first, deadline = None, float("inf")
    while running := [child for child in children if child.poll() is None]:
        first = first or next((c for c in children if c.returncode), None)
        signum = None
        if first and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
            if (code := _code(first)) not in _STOPPED:  # those saved and ended together
                number, signum = children.index(first), signal.SIGTERM
                text = f"process {number} ended with status {code}: stopping the rest"
        elif time.monotonic() > deadline:
            deadline, signum = time.monotonic() + GRACE, signal.SIGKILL
            text = f"some processes still run {GRACE} s later: killing them"
        if signum:
            print(f"mmjax: {text}", file=sys.stderr, flush=True)
            for child in running:
                child.send_signal(signum)
        time.sleep(0.05)
    return first or next((c for c in children if c.returncode), None)


def _code(child: subprocess.Popen) -> int:
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
