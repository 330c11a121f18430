"""What the processes of one run must agree on, and which of them writes.

One process on its own pays for none of it: no collective is run, nothing is compiled.
"""

import collections
import contextlib
import functools
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.parallel import distributed

_PATIENCE = 3600  # seconds: JAX ends all processes long before, where one is lost
GRACE = 10.0  # seconds from a signal to giving up what may never end
_LAG = 2  # steps between asking all processes whether to stop, and reading the answer


def writer() -> bool:
    """Whether this process writes what one process has to: logs, cards, run.json."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when all processes have come here, through the coordinator.

    Collectives give up on a process that is half a minute late (CPU's do), which a
    slow disk or compiler is; so this stands before the first of them, and before the
    first run of a new program.
    """
    if jax.process_count() > 1:
        barrier = ocp.multihost.get_barrier_sync_fn()
        barrier(key=f"mmjax {what}", timeout_ms=1000 * _PATIENCE)


class _Vote:
    """The largest number that any process holds, asked now and read two steps later.

    All read the same answer at the same step, whatever they were told when. Reading
    it at once would have the host wait for the device at every step.
    """

    def __init__(self):
        mesh = Mesh(np.asarray(jax.devices()), ("all",))
        self._split = NamedSharding(mesh, PartitionSpec("all"))
        largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        one_each = jax.ShapeDtypeStruct(mesh.shape_tuple[0][1:], jnp.int32)
        one_each = one_each.update(sharding=self._split)
        self._largest = largest.lower(one_each).compile()
        self._asked: collections.deque[jax.Array] = collections.deque()

    def __call__(self, mine: int) -> int:
        local = np.full(jax.local_device_count(), mine, np.int32)
        ballot = jax.make_array_from_process_local_data(self._split, local)
        self._asked.append(self._largest(ballot))
        return int(self._asked.popleft()) if len(self._asked) > _LAG else 0


class Stopped(BaseException):
    """Raised out of what was going on when the run was asked to stop.

    No Exception: whoever passes over a broken record must not pass over this.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stop:
    """Whether a signal asks the run to stop: see `stop_signals`."""

    def __init__(self):
        self.signum, self.since = 0, 0.0
        self._agreed = _Vote() if jax.process_count() > 1 else int
        self._patience: float | None = None
        self._until = 0.0
        self._timer: threading.Timer | None = None

    def __call__(self) -> int:
        """The number of the signal, after a step, or 0; the same in all processes."""
        return self._agreed(self.signum)

    def look(self) -> None:
        """For one who waits: raises Stopped, if asked to; of several processes, later.

        The others may have begun the next step, so that no one step can be saved.

        Raises:
          UserError: of several processes, this one has waited long enough.
        """
        if self.signum and jax.process_count() == 1:
            raise Stopped(self.signum)
        if self.signum and time.monotonic() - self.since > GRACE:
            raise UserError(
                f"asked to stop by {signal.Signals(self.signum).name} and still "
                f"waiting {GRACE:.0f} s later, so that the last step cannot be saved: "
                "run the same command to go on from the newest checkpoint"
            )

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raises as `look`, out of the block, where it does not end by itself in time.

        Only for what leaves nothing half done: starting, evaluating.
        """
        self._patience = seconds if jax.process_count() == 1 else 2 * GRACE
        try:
            self._hurry()
            yield
        finally:
            self._patience = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _hurry(self) -> None:
        if self._patience is None or not self.signum:
            return
        now = time.monotonic()
        if self._timer is None:
            self._until = now + self._patience
        if now >= self._until:
            self.look()
        elif self._timer is None:
            # A signal again, since only that ends what the main thread waits for.
            again = threading.main_thread().ident, signal.SIGTERM
            self._timer = threading.Timer(self._patience, signal.pthread_kill, again)
            self._timer.daemon = True
            self._timer.start()

    def hear(self, signum: int, frame: Any) -> None:
        """The handler of the signals."""
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signum:
            self.signum, self.since = signum, time.monotonic()
        self._hurry()


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Collects SIGINT, SIGTERM and SIGHUP; a second SIGINT interrupts at once.

    Yields a function to call after every step: the number of the signal that asks the
    run to stop there, or 0. With several processes a signal to any of them stops all
    of them after the same step, a few steps later.
    """
    stop = Stop()
    try:
        old = distributed.on_stop(stop.hear)
    except ValueError:  # not the main thread: a notebook's or a test's business
        yield stop
        return
    try:
        yield stop
    finally:
        for signum, previous in old.items():
            signal.signal(signum, previous)


def of_writer(value: Any, *, writer: int = 0) -> Any:
    """The value that one process holds of what can be JSON, on all processes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    mine = jax.process_index() == writer
    send = functools.partial(multihost_utils.broadcast_one_to_all, is_source=mine)
    text_n = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    size = int(send(np.array(text_n.size, np.int32)))
    sent_n = np.asarray(send(text_n if mine else np.zeros(size, np.int32)))
    return json.loads(sent_n.astype(np.uint8).tobytes())


def of_writer_or_error(make: Callable[[], Any]) -> Any:
    """What `make` gives in process 0, on all; the UserError that it raises, on all."""
    made, wrong = None, ""
    if writer():
        try:
            made = make()
        except UserError as e:
            wrong = str(e)
    made, wrong = of_writer([made, wrong])
    if wrong:
        raise UserError(wrong)
    return made


def _gathered(value: int) -> np.ndarray:
    """(processes,): a number of each."""
    from jax.experimental import multihost_utils

    return np.ravel(multihost_utils.process_allgather(np.array(value, np.int32)))


def failure_anywhere(
    mine: Exception | None, say: Callable[[Exception], str] = str
) -> Exception | None:
    """What failed in this process, or else in the first that failed; None if in none.

    For a thing that all processes try at once and that can fail in one of them, such as
    reading its own part of a file: all learn of it before any goes another way.
    """
    if jax.process_count() == 1:
        return mine
    wait_for_all("tried")
    failed_p = _gathered(mine is not None)
    if not failed_p.any():
        return None
    first = int(np.argmax(failed_p))
    said = of_writer(mine and say(mine), writer=first)
    return mine or ValueError(f"in process {first} of {failed_p.size}: {said}")


def require_same(facts: Mapping[str, Any]) -> None:
    """Raises UserError, on all processes, unless all hold the same JSON-able facts."""
    if jax.process_count() == 1:
        return
    for name, value in facts.items():
        text = json.dumps(value, sort_keys=True)
        # 31 bits: device arrays are 32 bits wide
        marks_p = _gathered(int(hashlib.sha256(text.encode()).hexdigest()[:7], 16))
        if (marks_p != marks_p[0]).any():
            raise UserError(
                f"processes 0 and {int(np.argmax(marks_p != marks_p[0]))} differ in "
                f"{name}: start all with the same command, the same code and data, and "
                "a workdir that all see"
            )


def require_shared(folder: epath.Path, *, wait: float = 10.0) -> None:
    """Raises UserError, on all processes, unless all see what process 0 writes there.

    Args:
      folder: exists.
      wait: seconds that a network file system may take to show it.
    """
    if jax.process_count() == 1:
        return
    note = folder / f".seen-{of_writer(time.time_ns())}"
    if writer():
        note.write_text("")
    end = time.monotonic() + wait
    while not (visible := note.exists()) and time.monotonic() < end:
        time.sleep(0.2)
    visible_p = _gathered(visible)
    if writer():
        note.unlink()
    if not visible_p.all():
        raise UserError(
            f"process {int(np.argmin(visible_p))} of {visible_p.size} does not see "
            f"what process 0 wrote to {folder}: all processes must share it, by a "
            "network file system or a bucket (config.checkpoint.folder)"
        )
