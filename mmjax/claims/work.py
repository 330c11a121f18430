"""Runs commands of mmjax, several at once, each a process of its own.

What is finished is not run again; a run that was killed goes on from its checkpoint.
The children end with this process, however it ends.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from mmjax.claims.plan import Run
from mmjax.errors import UserError
from mmjax.parallel import distributed, runtime

_LOOK = 0.1  # seconds between two looks at the children


class Stopped(Exception):
    """A signal came; every run has saved. `code` is the exit status."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.code = 128 + signum


def work(
    planned: Sequence[Run],
    folder: pathlib.Path,
    *,
    jobs: int = 1,
    say: Callable[[str], None],
) -> None:
    """Runs whatever is missing, `jobs` runs at a time.

    A run that fails does not end the others; only what starts from it is left out.

    Args:
      folder: holds logs/, the children's output.
      say: is told when a run begins and ends.

    Raises:
      UserError: some failed; names each with the last line of its log.
      Stopped: SIGINT, SIGTERM or SIGHUP came.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: give 1 or more")
    waiting = {run.name: run for run in planned if run.missing()}
    total, done = len(planned), len(planned) - len(waiting)
    if done:
        say(f"{done} of {total} runs are in {folder} already")
    failed: dict[str, str] = {}
    children: dict[str, _Child] = {}
    with _pipe() as pipe, _passing_on(children) as received:
        try:
            while (waiting and not received) or children:
                going = waiting.keys() | children.keys()
                ready = [r for r in waiting.values() if not going & set(r.needs)]
                for run in ready[: jobs - len(children)] if not received else ():
                    del waiting[run.name]
                    lost = [name for name in run.needs if name in failed]
                    if lost:
                        failed[run.name] = f"it starts from {lost[0]}, which failed"
                        continue
                    children[run.name] = _Child(run, folder, pipe)
                    say(f"{run.name}: begins")
                for name, child in list(children.items()):
                    if not child.going():
                        del children[name]
                        done += not child.code
                        took = f"{child.minutes():.1f} min"
                        if child.code and not received:
                            failed[name] = child.last_line()
                        word = f"failed ({child.code})" if child.code else "done"
                        say(f"[{done}/{total}] {name}: {word}, {took}")
                time.sleep(_LOOK)
        finally:
            for child in children.values():
                child.process.kill()
    if received:
        raise Stopped(received[0])
    if failed:
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(
            f"{len(failed)} of {total} runs failed ({said}); their output is in "
            f"{folder}/logs; what is trained is kept, and the same command goes on"
        )


class _Child:
    """A run's commands, one process after the other."""

    def __init__(self, run: Run, folder: pathlib.Path, pipe: int):
        self.log = folder / "logs" / f"{run.workdir.name}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._left, self._pipe = run.missing(), pipe
        self._begin = time.monotonic()
        self._next()

    def _next(self) -> None:
        words = self._left.pop(0)
        env = os.environ | {distributed.LAUNCHER: str(self._pipe)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*runtime.child(), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C comes once, from here
                env=env,
                pass_fds=(self._pipe,),
            )

    def going(self) -> bool:
        """Whether it still runs; begins its next command where one has succeeded."""
        self.code = self.process.poll()
        if self.code == 0 and self._left:
            self._next()
            self.code = None
        return self.code is None

    def minutes(self) -> float:
        return (time.monotonic() - self._begin) / 60

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("mmjax: ") if lines else "it said nothing"


@contextlib.contextmanager
def _pipe() -> Iterator[int]:
    """The end of a pipe that children read: its close tells them of this one's end."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


@contextlib.contextmanager
def _passing_on(children: dict[str, _Child]) -> Iterator[list[int]]:
    """Sends the children what this process is sent; yields the list of it."""
    received: list[int] = []

    def handler(signum: int, frame: object) -> None:
        received.append(signum)
        for child in list(children.values()):
            child.process.send_signal(signum)

    old = distributed.on_stop(handler)
    try:
        yield received
    finally:
        for signum, previous in old.items():
            signal.signal(signum, previous)


def note(text: str) -> None:
    """A line of progress."""
    print(f"mmjax: {text}", file=sys.stderr, flush=True)
