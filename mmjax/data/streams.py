"""Training batches of a stream: shards in a new order each epoch, rows out of windows.

Process k of n reads every n-th shard of an epoch's order, the k-th first, one after the
other and each to its end, and then those of the next epoch. Its samples are cut into
windows of one size, and rows are drawn from a window without replacement. So a sample
comes once an epoch, and rows follow from (seed, k, n): neither threads nor restarts
change them. A position is where a window begins, shard and byte or row, and the rows
that were drawn from it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from mmjax.data import fields as fields_lib
from mmjax.data import records
from mmjax.data.fields import Fields
from mmjax.data.fields.base import View
from mmjax.data.pipeline import Batch, BrokenBudget, TrainIterator
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import stream
from mmjax.errors import UserError

log = logging.getLogger(__name__)
START = {"epoch": 0, "turn": 0, "offset": 0, "window": 0, "row": 0}


class StreamIterator:
    """This process's rows of training batches: `pipeline.TrainIterator` of a Stream.

    `get_state` is of this process alone: {"shares": {k: position}, "of": n}. Those of
    all, `joined`, are what a checkpoint holds.
    """

    def __init__(
        self,
        source: stream.Stream,
        fields: Fields,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
        max_broken: float = 0.01,
    ):
        if batch_size < 1 or batch_size % process_count:
            raise UserError(
                f"batch {batch_size} must split over {process_count} processes"
            )
        if len(source.blobs) < process_count:
            raise UserError(
                f"{source.name} has {len(source.blobs)} shards for {process_count} "
                "processes: use as many or more, or index them (webdataset:)"
            )
        self.source, self.fields, self.seed = source, fields, seed
        self.share = process_index, process_count
        self.rows = batch_size // process_count
        self.size = -(-source.window // self.rows) * self.rows
        self.threads, self.budget = max(1, threads), BrokenBudget(max_broken)
        self.position: dict[str, int] = dict(START)
        self.pool: concurrent.futures.ThreadPoolExecutor | None = None
        self.running: Iterator[tuple[dict[str, int], Batch, list]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.running is None:
            self.pool = concurrent.futures.ThreadPoolExecutor(self.threads + 1)
            self.running = self._batches(self.pool)
        self.position, batch, broken = next(self.running)
        bad = int((batch["_broken"] > 0).sum())
        self.budget.add(self.rows, bad, broken)
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where this process's next batch begins."""
        index, count = self.share
        return {"shares": {str(index): dict(self.position)}, "of": count}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues at a state of as many processes.

        Raises:
          UserError: it is of other processes, or of no stream.
        """
        index, count = self.share
        if state.get("of") != count or str(index) not in state["shares"]:
            raise UserError(
                f"the position in {self.source.name} is of {state.get('of', 'no')} "
                f"processes that stream, and these are {count}: resume with as many, "
                "or begin another workdir from this one's weights"
            )
        self.close()
        self.position = {k: int(v) for k, v in state["shares"][str(index)].items()}

    def close(self) -> None:
        """Ends the threads, once what they read has come."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = self.running = None

    def _samples(
        self, at: Mapping[str, int]
    ) -> Iterator[tuple[dict[str, int], stream.Sample | BrokenRecord]]:
        """(position after it, sample) of all epochs, from a position on."""
        epoch, turn, offset = at["epoch"], at["turn"], at["offset"]
        index, count = self.share
        while True:
            order = stream.order(self.seed, epoch, len(self.source.blobs))[index::count]
            good = bad = 0
            for turn in range(turn, len(order)):  # noqa: B020
                for after, sample in self.source.samples(int(order[turn]), offset):
                    broken = isinstance(sample, BrokenRecord)
                    good, bad = good + (not broken), bad + broken
                    yield {"epoch": epoch, "turn": turn, "offset": after}, sample
                offset = 0
            log.info("epoch %d: %d samples read, %d places lost", epoch, good, bad)
            if not good and not at["turn"] and not at["offset"]:
                raise UserError(f"no sample of {self.source.name} can be read")
            epoch, turn = epoch + 1, 0

    def _windows(self) -> Iterator[tuple[dict[str, int], stream.Window]]:
        """(position where it begins, window), from this position's on."""
        start = {k: self.position[k] for k in ("epoch", "turn", "offset", "window")}
        samples = self._samples(start)
        while True:
            held, after = [], start
            while len(held) < self.size:
                after, sample = next(samples)
                held.append(sample)
            yield start, self.source.window_of(held)
            start = {**after, "window": start["window"] + 1}

    def _batches(self, pool: Any) -> Iterator[tuple[dict[str, int], Batch, list]]:
        """(position after it, batch, broken records), made ahead by threads."""
        windows, row = self._windows(), self.position["row"]
        following = pool.submit(next, windows)
        while True:
            start, window = following.result()
            following = pool.submit(next, windows)
            ahead: collections.deque = collections.deque()
            starts = range(row, self.size, self.rows)
            for first in starts:
                ahead.append((first, pool.submit(self._batch, start, window, first)))
                if len(ahead) > 2 * self.threads:
                    yield self._done(start, *ahead.popleft())
            while ahead:
                yield self._done(start, *ahead.popleft())
            row = 0

    def _done(self, start: dict[str, int], first: int, made: Any) -> tuple:
        return {**start, "row": first + self.rows}, *made.result()

    def _batch(
        self, start: Mapping[str, int], window: stream.Window, first: int
    ) -> tuple[Batch, list[BrokenRecord]]:
        identity = [self.seed, *self.share, start["window"]]
        order = np.random.default_rng(identity).permutation(self.size)
        rows, broken = [], []
        for place in order[first : first + self.rows]:
            rng = np.random.default_rng([*identity, int(place)])

            def read(i: int, rng: np.random.Generator = rng) -> dict[str, Any]:
                return fields_lib.row(
                    self.fields, window[i], rng, View(train=True, index=i)
                )

            row, passed = records.next_good(window, int(place), read)
            rows.append(row)
            broken.append(passed)
        out = fields_lib.collate(self.fields, rows)
        out["_broken"] = np.array([len(errors) for errors in broken], np.int32)
        return out, [error for errors in broken for error in errors]


def iterator(
    source: records.Source, fields: Fields, *, workers: int = 0, **options: Any
) -> TrainIterator | StreamIterator:
    """The training batches of any source; `options` as of `TrainIterator`.

    Raises:
      UserError: see the two classes; worker processes are asked of a stream.
    """
    if not isinstance(source, stream.Stream):
        return TrainIterator(source, fields, workers=workers, **options)
    if workers:
        raise UserError(
            f"config.data.workers is {workers}, and {source.name} is read in order: "
            "use 0, and config.data.threads"
        )
    return StreamIterator(source, fields, **options)


def joined(states: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of all processes out of each one's."""
    shares = {k: v for state in states for k, v in state["shares"].items()}
    return {"shares": shares, "of": states[0]["of"]}
