"""Several commands as one: prefixes, failures and signals, on programs without JAX."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmjax.cli import launch
from mmjax.errors import UserError

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_carry_their_number(capfd):
    code = "import sys; print('one', 'a'); print('two', file=sys.stderr)"
    assert launch.together([python(code), python("print('x' * 70_000)")]) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[0] one a", "[1] " + "x" * 70_000]
    assert err == "[0] two\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL),
    ],
)
def test_one_failure_stops_the_rest(code: str, status: int, capfd):
    begin = time.monotonic()
    assert launch.together([python(SLEEP), python(code), python(SLEEP)]) == status
    assert time.monotonic() - begin < launch.GRACE  # they ended by SIGTERM, at once
    assert f"process 1 ended with status {status}: stopping" in capfd.readouterr().err


def test_one_that_ignores_sigterm_is_killed(monkeypatch, capfd):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(60)"
    )
    late = "import sys, time; time.sleep(1); sys.exit(3)"
    assert launch.together([python(deaf), python(late)]) == 3
    assert "0.5 s later" in capfd.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(signum: int, capfd):
    """Each child gets it once, and the launcher's status says which it was."""
    code = f"""
import signal, sys, time
seen = []
signal.signal({int(signum)}, lambda *_: seen.append(1))
print('up', flush=True)
while not seen: time.sleep(0.02)
time.sleep(0.3)
print('signals', len(seen), flush=True)
sys.exit({128 + signum})
"""

    def send() -> None:
        seen = ""
        while seen.count("up") < 2:
            seen += capfd.readouterr().out
            time.sleep(0.02)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    assert launch.together([python(code)] * 2) == 128 + signum
    thread.join()
    out = capfd.readouterr().out.splitlines()
    assert sorted(out) == ["[0] signals 1", "[1] signals 1"]


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["--processes", "0", "--", "train"], "--processes 0"),
        (["--processes", "2", "--", "sample"], "runs train or eval, not 'sample'"),
    ],
)
def test_what_it_refuses(argv: list[str], what: str):
    from mmjax import cli

    with pytest.raises(UserError, match=what):
        cli._run(["launch", *argv])


def test_the_command_reaches_every_process():
    """Bad input of the command itself: one line of each process, and its status."""
    command = [sys.executable, "-m", "mmjax.cli", "launch", "--processes", "2", "--"]
    command += ["train", "--workdir", "w", "--config", "configs/clip.py:tinny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2, done.stderr
    assert "] mmjax: --config=configs/clip.py:tinny: no preset 'tinny'" in done.stderr
