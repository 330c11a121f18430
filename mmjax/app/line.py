"""Who computes when: one after another, in a thread of its own, and the others wait.

A job tells events, mappings that become JSON: `place` (0 computes), what its work says,
`error`, and last `done`, with the seconds that it took.
"""

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from mmjax import errors
from mmjax.errors import UserError

log = logging.getLogger(__name__)

Tell = Callable[[Mapping[str, Any]], None]
Work = Callable[[Tell], None]
_GONE = 1.0  # seconds between looks at whether somebody still listens


class Cancelled(Exception):
    """Nobody wants the rest of a job: told by its next event."""


class _Job:
    def __init__(self, work: Work, listen: Tell):
        self.work, self._listen, self.cancelled = work, listen, threading.Event()

    def tell(self, event: Mapping[str, Any]) -> None:
        if not self.cancelled.is_set():  # where nobody listens the loop may be closed
            self._listen(event)

    def say(self, event: Mapping[str, Any]) -> None:
        if self.cancelled.is_set():
            raise Cancelled
        self.tell(event)

    def do(self) -> None:
        begun = time.perf_counter()
        try:
            self.work(self.say)
        except Cancelled:
            return
        except UserError as error:
            self.tell({"error": str(error)})
        except Exception as error:  # the page outlives whatever a model raises
            log.exception("a request failed")
            text = errors.refused(error) or f"{type(error).__name__}, see the terminal"
            self.tell({"error": f"This request failed: {text}"})
        self.tell({"done": time.perf_counter() - begun})


class Line:
    """Jobs in the order they came.

    Args:
      most: Jobs that may be in it; `full` says whether they are.
    """

    def __init__(self, most: int = 16):
        self.most = most
        self._jobs: list[_Job] = []
        self._turn = threading.Lock()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "mmjax-app")

    @property
    def full(self) -> bool:
        return len(self._jobs) >= self.most

    def enter(self, work: Work, tell: Tell = lambda event: None) -> Callable[[], None]:
        """Adds a job, which calls `tell` from other threads; gives what cancels it."""
        job = _Job(work, tell)
        with self._turn:
            self._jobs.append(job)
        self._tell_places()
        self._thread.submit(self._do, job)
        return lambda: self._cancel(job)

    def _do(self, job: _Job) -> None:
        try:
            if not job.cancelled.is_set():
                job.do()
        finally:
            self._leave(job)

    def _cancel(self, job: _Job) -> None:
        job.cancelled.set()
        if job in self._jobs[1:]:  # the first one computes, up to its next event
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        with self._turn:
            self._jobs = [other for other in self._jobs if other is not job]
        self._tell_places()

    def _tell_places(self) -> None:
        for place, job in enumerate(list(self._jobs)):
            job.tell({"place": place})

    async def events(
        self, work: Work, gone: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The events of a new job; who stops to listen, or is `gone`, cancels it."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue()
        cancel = self.enter(
            work, lambda event: loop.call_soon_threadsafe(told.put_nowait, event)
        )
        event: Mapping[str, Any] = {}
        try:
            while "done" not in event:
                try:
                    event = await asyncio.wait_for(told.get(), _GONE)
                except TimeoutError:
                    if await gone():
                        return
                    continue
                yield event
        finally:
            cancel()

    def close(self) -> None:
        """Cancels all; what computes ends at its next event."""
        for job in list(self._jobs):
            job.cancelled.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
