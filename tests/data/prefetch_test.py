import threading
import time

import pytest

from mmjax.data.prefetch import Prefetch


class Counter:
    """0, 1, 2, ... up to `end`, which raises."""

    def __init__(self, end=1000, error=StopIteration):
        self.at, self.end, self.error = 0, end, error

    def __next__(self):
        if self.at == self.end:
            raise self.error
        self.at += 1
        return self.at - 1

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


def test_the_state_is_that_of_the_batch_handed_out():
    it = Prefetch(Counter(), 4, lambda n: n * 10)
    assert it.get_state() == {"at": 0}
    for n in range(6):
        assert next(it) == n * 10
        time.sleep(0.002)  # the thread runs ahead
        assert it.get_state() == {"at": n + 1}
    assert it.iterator.at > 6
    it.set_state({"at": 2})
    assert next(it) == 20 and it.get_state() == {"at": 3}
    it.close()
    assert it.iterator.at == 3
    assert next(it) == 30  # close is a pause
    it.close()


def test_the_end_and_errors_reach_the_consumer():
    assert list(Prefetch(Counter(5), 3, str)) == list("01234")
    it = Prefetch(Counter(2, ValueError("bad data")), 3, str)
    assert [next(it), next(it)] == ["0", "1"]
    for _ in range(2):
        with pytest.raises(ValueError, match="bad data"):
            next(it)
    assert it.get_state() == {"at": 2}
    it.close()


def test_it_works_ahead_and_ends_its_thread():
    made = threading.Semaphore(0)

    def transform(n):
        made.release()
        return n

    it = Prefetch(Counter(), 3, transform)
    next(it)
    for _ in range(4):  # the one handed out and three ahead
        assert made.acquire(timeout=5)
    it.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
