"""A thread that keeps the next batches ready, and a state that stays exact."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

Out = TypeVar("Out")
_LOOK = 0.25  # seconds
_PATIENCE = 5.0  # seconds


class Stateful(Protocol):
    """An iterator that can say where it stands and go back there."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


class Prefetch(Generic[Out]):
    """`transform(batch)` of the next `size` batches, made ahead in one thread.

    `get_state()` is the state after the batch last handed out, however far ahead the
    thread is: what a checkpoint has to hold. An error of the iterator or of transform
    is raised in place of its batch, and asking again tries that batch again. For one
    consumer.

    A read that hangs cannot be ended. `look` is called every quarter of a second of
    waiting: what it raises ends the wait, and then the thread is left to itself.
    """

    def __init__(
        self,
        iterator: Stateful,
        size: int,
        transform: Callable[[Any], Out],
        look: Callable[[], None] = lambda: None,
    ):
        self.iterator, self.transform = iterator, transform
        self.size, self.look, self.stuck = max(1, size), look, False
        self.state = iterator.get_state()
        self.thread: concurrent.futures.ThreadPoolExecutor | None = None
        self.ahead: collections.deque[concurrent.futures.Future] = collections.deque()

    def __iter__(self) -> Iterator[Out]:
        return self

    def __next__(self) -> Out:
        if self.thread is None:
            self.thread = concurrent.futures.ThreadPoolExecutor(1, "prefetch")
        while len(self.ahead) < self.size:
            self.ahead.append(self.thread.submit(self._make))
        self._wait(self.ahead[0])
        try:
            value, self.state = self.ahead.popleft().result()
        except BaseException:  # Ctrl-C too: the thread must not run on
            self.close()
            raise
        self.ahead.append(self.thread.submit(self._make))
        return value

    def get_state(self) -> Any:
        """The state after the batch last handed out."""
        return self.state

    def set_state(self, state: Any) -> None:
        """Drops what was made ahead and continues at `state`."""
        self._stop()
        self.iterator.set_state(state)
        self.state = state

    def close(self) -> None:
        """Ends the thread; the iterator stands after the batch last handed out.

        A thread that is `stuck`, or takes longer than _PATIENCE, is not waited for, and
        its iterator stays where it is.
        """
        running = [made for made in self.ahead if not made.cancel()]
        late = concurrent.futures.wait(running, 0 if self.stuck else _PATIENCE).not_done
        if late:
            self.thread.shutdown(wait=False, cancel_futures=True)
        else:
            self.set_state(self.state)

    def _wait(self, next_one: concurrent.futures.Future) -> None:
        self.stuck = True  # until it is here
        while not concurrent.futures.wait([next_one], timeout=_LOOK).done:
            self.look()
        self.stuck = False

    def _make(self) -> tuple[Out, Any]:
        return self.transform(next(self.iterator)), self.iterator.get_state()

    def _stop(self) -> None:
        if self.thread is not None:
            self.thread.shutdown(wait=True, cancel_futures=True)
        self.thread = None
        self.ahead.clear()
