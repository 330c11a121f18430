"""Joining several processes into one run, by `jax.distributed`, before JAX starts.

A process on its own stays on its own: nothing here acts unless an address is given, by
option or environment, or `--distributed auto` asks JAX to find the cluster it is in.

Exit codes of a process of several, beside those of `mmjax.cli.main`:
  75 (EX_TEMPFAIL)  another process was lost, or did not arrive: run all of them again
"""

import argparse
import contextlib
import dataclasses
import errno
import functools
import ipaddress
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmjax import errors
from mmjax.errors import UserError
from mmjax.parallel import runtime

LOST = os.EX_TEMPFAIL
LAUNCHER = "MMJAX_LAUNCHER"  # names the pipe whose other end `mmjax launch` holds
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # ask a run to save and end
HEARTBEAT = 30  # seconds of silence after which a process counts as lost
# What JAX itself reads or its launchers set.
_ENVIRONMENT = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "process": "JAX_PROCESS_ID",
}
_LOST_WORDS = (
    r"gloo|nccl|UNAVAILABLE|DEADLINE_EXCEEDED|coordination service|barrier|"
    r"heartbeat|Connection (closed|reset)"
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process this is, of how many; `auto` leaves the rest to JAX."""

    coordinator: str = ""
    processes: int = 0
    process: int = 0
    auto: bool = False

    def __str__(self) -> str:
        return "this process" if self.auto else f"process {self.process}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several processes, one command for each")
    where, count, number = (f"${variable}" for variable in _ENVIRONMENT.values())
    for option, kind, metavar, text in (
        ("--coordinator", str, "HOST:PORT", f"where process 0 runs, or {where}"),
        ("--processes", int, "N", f"or {count}"),
        ("--process", int, "I", f"this one's number, from 0, or {number}"),
    ):
        group.add_argument(option, type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--distributed",
        choices=("auto", "off"),
        help="auto: as Slurm, Open MPI, Kubernetes or Cloud TPU say; off: one process, "
        "whatever the environment says",
    )
    text = "how long to wait for the other processes (300)"
    group.add_argument(
        "--join-timeout", type=int, default=300, metavar="SECONDS", help=text
    )


def on_stop(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Has `handler` called at the signals of STOP; gives the handlers of before.

    A hang-up that is ignored, as `nohup` has it, stays ignored.
    """
    heard = [
        s for s in STOP if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN
    ]
    return {s: signal.signal(s, handler) for s in heard}


def chosen(
    args: argparse.Namespace, environ: Mapping[str, str] = os.environ
) -> Place | None:
    """What the options and the environment ask for; None is one process on its own.

    Raises:
      UserError: an option is missing, contradicts another, or is out of range.
    """
    given = {name: getattr(args, name) for name in _ENVIRONMENT}
    set_by_option = [f"--{name}" for name, v in given.items() if v is not None]
    if args.join_timeout < 1:
        raise UserError(f"--join-timeout {args.join_timeout}: give 1 second or more")
    if args.distributed:
        if set_by_option:
            raise UserError(
                f"--distributed {args.distributed} with {', '.join(set_by_option)}: "
                "give the one or the other"
            )
        return Place(auto=True) if args.distributed == "auto" else None
    for name, variable in _ENVIRONMENT.items():
        if given[name] is None:
            given[name] = environ.get(variable) or None
        try:
            if name != "coordinator" and given[name] is not None:
                given[name] = int(given[name])
        except ValueError as e:
            raise UserError(f"${variable} is {given[name]!r}: give a number") from e
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        wanted = ", ".join(f"--{n} (or ${_ENVIRONMENT[n]})" for n in missing)
        have = ", ".join(f"{n}={v}" for n, v in given.items() if v is not None)
        raise UserError(
            f"{have} without {wanted}: a run of several processes needs all three; "
            "--distributed off runs one process alone"
        )
    place = Place(**given)
    last = place.processes - 1
    if last < 0:
        raise UserError(f"--processes {place.processes}: give 1 or more")
    if not 0 <= place.process <= last:
        raise UserError(
            f"--process {place.process} of --processes {place.processes}: give 0 to "
            f"{last}"
        )
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"--coordinator {place.coordinator}: give HOST:PORT, the address of "
            "process 0 as the others reach it, such as 10.0.0.1:8476"
        )
    return place if last else None


@contextlib.contextmanager
def session(args: argparse.Namespace) -> Iterator[None]:
    """Sets up the process (`runtime.configure`), joined to the others if asked to.

    With several processes, an error that leaves the block ends this one at once, its
    message said: an orderly exit would wait for the others, who wait for it.

    Args:
      args: of `add_arguments`, and `devices`.
    """
    place = chosen(args)
    if place is None:
        _follow_launcher()
        runtime.configure(devices=args.devices)
        yield
        return
    joined = _watched(place, args.join_timeout)
    try:
        runtime.configure(devices=args.devices)
        _join(place, args.join_timeout)
        joined()
        yield
    except BaseException as error:
        code = _say(error, place)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(error: BaseException, place: Place) -> int:
    """Prints what ended a process, and gives its exit code."""
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):  # as Python itself does
            print(error.code, file=sys.stderr)
            return 1
        return int(error.code or 0)
    if isinstance(error, KeyboardInterrupt):
        print("mmjax: interrupted", file=sys.stderr)
        return 130
    if why := _lost(error):
        _print_lost(place, f": {why}")
        return LOST
    if isinstance(error, UserError):
        print(f"mmjax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if why := errors.refused(error):
        print(f"mmjax: {why}", file=sys.stderr)
        return 2
    traceback.print_exception(error)
    return 1


def _lost(error: BaseException | None) -> str:
    """The first line of what JAX said when another process went away, or ''."""
    import jax

    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            if re.search(_LOST_WORDS, str(error), re.IGNORECASE):
                return str(error).splitlines()[0]
        error = error.__cause__ or error.__context__
    return ""


def _print_lost(place: Place, why: str) -> None:
    print(
        f"mmjax: {place} lost another process of the run{why}. Saved checkpoints are "
        "whole: run the same command for all processes to go on from the newest",
        file=sys.stderr,
        flush=True,
    )


# -- watching ------------------------------------------------------------------
def _watched(place: Place, timeout: int) -> Any:
    """Goes on in a child, which this process watches: JAX ends a process by SIGABRT
    when it loses another, and no Python code of that process runs any more.

    Signals are passed on, and the child's status is this process' own. Returns, in
    the child, a function to call once the processes have joined.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setpgid(0, 0)  # a terminal's Ctrl-C comes once, by the watcher
        threading.Thread(target=_end_with, args=(theirs.recv,), daemon=True).start()
        return lambda: theirs.sendall(b"joined")
    theirs.close()
    _follow_launcher()

    def pass_on(signum: int, frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    on_stop(pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ours.setblocking(False)
    joined = False
    with contextlib.suppress(BlockingIOError):
        joined = bool(ours.recv(16))
    if code == -signal.SIGABRT and joined:
        _print_lost(place, "; JAX says above which one")
        code = LOST
    elif code == -signal.SIGABRT:
        print(
            f"mmjax: {place}: not all processes arrived within {timeout} s: start all "
            "of them, with the same --coordinator and --processes",
            file=sys.stderr,
        )
        code = LOST
    elif code < 0:
        name = signal.Signals(-code).name
        print(f"mmjax: {place} was ended by {name}", file=sys.stderr)
        code = 128 - code
    sys.stderr.flush()
    os._exit(code)


def _end_with(read: Callable[[int], bytes]) -> None:
    """Ends this process when the one at the other end has, even by SIGKILL."""
    with contextlib.suppress(ConnectionResetError):  # where "joined" was not read yet
        read(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _follow_launcher() -> None:
    """Ends this process with the `mmjax launch` that started it, if one did."""
    pipe = os.environ.pop(LAUNCHER, "")
    if pipe:
        read = functools.partial(os.read, int(pipe))
        threading.Thread(target=_end_with, args=(read,), daemon=True).start()


# -- joining -------------------------------------------------------------------
def _join(place: Place, timeout: int) -> None:
    import jax

    # Its handler of SIGTERM would replace the default one and then swallow the signal;
    # the loop agrees on where to stop by itself (mmjax.parallel.processes).
    jax.config.update("jax_enable_preemption_service", False)
    limits = {
        "initialization_timeout": timeout,
        "heartbeat_timeout_seconds": HEARTBEAT,
        "shutdown_timeout_seconds": timeout,
    }
    if place.auto:
        try:
            jax.distributed.initialize(**limits)
        except ValueError as e:
            raise UserError(
                f"--distributed auto: {e} JAX knows Slurm, Open MPI, Kubernetes jobs "
                "and Cloud TPU, and this is none of them: give --coordinator, "
                "--processes and --process"
            ) from e
        return
    host, _, port = place.coordinator.rpartition(":")
    if place.process:
        _reach(host.strip("[]"), int(port), place, timeout)
    else:
        limits["coordinator_bind_address"] = _listening(host.strip("[]"), int(port))
    numbers = place.coordinator, place.processes, place.process
    jax.distributed.initialize(
        *numbers, cluster_detection_method="deactivate", **limits
    )


def _listening(host: str, port: int) -> str | None:
    """Where process 0 is to listen: at the address it was given, and nowhere else.

    None is at all addresses: where the coordinator is a name, which may mean another
    address here than elsewhere, or an address that is translated on the way.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        six = ipaddress.ip_address(address).version == 6
    except ValueError:
        address, six = "", False
    try:
        family = socket.AF_INET6 if six else socket.AF_INET
        socket.create_server((address, port), family=family).close()
        bound = f"[{address}]:{port}" if six else f"{address}:{port}"
        return bound if address else None
    except OSError as e:
        if e.errno == errno.EADDRNOTAVAIL:
            return None
        raise UserError(
            f"--coordinator: port {port} cannot be opened here: {e.strerror}; give all "
            "processes another port, and process 0 the host it names"
        ) from e


def _reach(host: str, port: int, place: Place, timeout: int) -> None:
    """Waits for process 0 to listen: JAX would abort where it does not."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as e:
            if time.monotonic() >= end:
                raise UserError(
                    f"{place} of {place.processes} could not reach the coordinator "
                    f"{place.coordinator} in {timeout} s ({e}): start process 0 there, "
                    "and open the port between the hosts"
                ) from e
        time.sleep(0.3)
