"""Sources to batches: training batches without end, evaluation batches in order.

Row p of the training stream is a pure function of (seed, p): which record, which of its
captions, which crop. Step s of a global batch of B takes rows s * B to s * B + B, and
process k of n the k-th n-th of them, so that neither threads, worker processes,
hosts nor restarts change what is trained on.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Self

import grain
import numpy as np

from mmjax.data import fields as fields_lib
from mmjax.data import records
from mmjax.data import workers as workers_lib
from mmjax.data.fields import Fields
from mmjax.data.fields.base import View
from mmjax.data.records import BrokenRecord, Source
from mmjax.errors import UserError

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
_LEAST = 1000  # rows before which a share says little: see BrokenBudget


class BrokenBudget:
    """Logs each broken record once, and ends the run when they are too many.

    share: of the rows seen, and never of fewer than 1,000, so that one bad record in
    the first batch of a small run is no reason to stop.
    """

    def __init__(self, share: float):
        if not 0 <= share <= 1:
            raise UserError(f"max_broken {share}: use a share from 0 to 1")
        self.share, self.rows, self.count = share, 0, 0
        self.places: set[str] = set()

    def add(self, rows: int, bad: int, broken: Sequence[BrokenRecord]) -> None:
        """Counts `rows` drawn, `bad` of them broken; `broken` are the records met."""
        self.rows += rows
        self.count += bad
        for error in broken:
            if error.place not in self.places:
                self.places.add(error.place)
                log.warning("broken record skipped: %s", error)
        if broken and self.count > self.share * max(self.rows, _LEAST):
            raise UserError(
                f"{self.count} broken records in {self.rows} rows, above the share of "
                f"{self.share:.2%} allowed; the last is {broken[-1]}. `mmjax data "
                "check` lists them all; raise max_broken to train without them"
            )


class Loader:
    """Training rows by position, and batches of them. Picklable, for workers."""

    def __init__(self, source: Source, fields: Fields, *, rows: int, seed: int):
        self.source, self.fields, self.rows = source, fields, rows
        # Shuffled before it repeats: each epoch is its own permutation. The index goes
        # along because a random_map's generator is a function of (seed, position).
        self.order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
        self.stream = self.order.random_map(self.row)
        self.gathers = gather(source, fields, np.zeros(1, np.int64))

    def row(self, index: int, rng: np.random.Generator) -> tuple:
        """One row and the broken records before it: a good record takes their place."""

        def read(i: int) -> dict[str, Any]:
            view = View(train=True, index=i)
            return fields_lib.row(self.fields, self.source[i], rng, view)

        return records.next_good(self.source, int(index), read)

    def batch(self, first: int) -> tuple[Batch, list[BrokenRecord]]:
        """Rows `first` to `first + rows` of the stream."""
        if self.gathers is not None:
            index_b = np.array([self.order[first + k] for k in range(self.rows)])
            out = gather(self.source, self.fields, index_b)
            return {**out, "_broken": np.zeros(self.rows, np.int32)}, []
        drawn = [self.stream[first + k] for k in range(self.rows)]
        rows, broken = zip(*drawn, strict=True)
        out = fields_lib.collate(self.fields, rows)
        out["_broken"] = np.array([len(errors) for errors in broken], np.int32)
        return out, [error for errors in broken for error in errors]


def gather(source: Source, fields: Fields, index_b: np.ndarray) -> Batch | None:
    """Rows of a source that is arrays in memory (`columns`), by one index of each.

    None where the source is none, or where a field has to make its rows one by one.
    """
    columns, out = getattr(source, "columns", None), {}
    if columns is None or any(field.optional for field in fields.values()):
        return None
    for name, field in fields.items():
        values = field.column(name, columns, index_b)
        arrays = None if values is None else field.gather(name, values)
        if arrays is None:
            return None
        out |= arrays
    return out


class TrainIterator:
    """This process's rows of training batches without end, each epoch in a new order.

    Yields the arrays of the fields, with B rows, and `_broken` int32 (B,), the broken
    records passed over for the row.
    """

    def __init__(
        self,
        source: Source,
        fields: Fields,
        *,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 2,
        workers: int = 0,
        max_broken: float = 0.01,
    ):
        """Opens the stream at its first row.

        Args:
          source: records; those that are broken are replaced, logged and counted.
          fields: what a batch is made of, as `fields.choose` gives it.
          batch_size: of all processes together; each hands out its rows, in order.
          seed: with the step, decides every row.
          process_index, process_count: which share of each batch is this process's.
          threads: that prepare batches in this process; 0 prepares them when asked.
          workers: processes that do it instead; the program must then be importable
            (`if __name__ == "__main__"`).
          max_broken: share of broken records at which the run ends in a UserError.
        """
        if batch_size < 1 or batch_size % process_count:
            low = batch_size // process_count * process_count
            fix = " or ".join(str(n) for n in (low, low + process_count) if n > 0)
            raise UserError(
                f"batch {batch_size} must split over {process_count} processes: "
                f"use {fix}"
            )
        rows = batch_size // process_count
        self.loader = Loader(source, fields, rows=rows, seed=seed)
        self.batch_size, self.offset = batch_size, process_index * rows
        self.threads, self.workers = threads, workers
        self.budget = BrokenBudget(max_broken)
        for part in process_index == 0 and records.left_out(source) or ():
            log.warning("left out: %s", part)
        self.next_index = 0
        self.running: Iterator[Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.running is None:
            self.running = self._start()
            with workers_lib.safe_path() if self.workers else contextlib.nullcontext():
                batch, broken = next(self.running)
        else:
            batch, broken = next(self.running)
        if self.workers:  # out of shared memory, which ends with the worker
            batch = {name: np.array(array) for name, array in batch.items()}
        self.next_index += self.batch_size
        self.budget.add(len(batch["_broken"]), (batch["_broken"] > 0).sum(), broken)
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the next batch of all processes starts in the stream."""
        return {"global_next_index": self.next_index}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues at a state, of any number of processes, workers and batch size.

        Raises:
          UserError: it is of a stream.
        """
        if "global_next_index" not in state:
            raise UserError(
                f"the position is of a stream, and {self.loader.source.name} is none: "
                "resume with the stream, or begin another workdir from these weights"
            )
        self.close()
        self.next_index = int(state["global_next_index"])

    def close(self) -> None:
        """Ends the threads and worker processes."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def _start(self) -> Iterator[Any]:
        first, step = self.next_index + self.offset, self.batch_size
        steps = (sys.maxsize - first) // step
        starts = grain.MapDataset.range(first, first + steps * step, step)
        batches = starts.map(self.loader.batch)
        return run(batches, threads=self.threads, workers=self.workers)


def eval_batches(
    source: Source, fields: Fields, *, batch_size: int, threads: int = 2
) -> Iterator[Batch]:
    """The source once, in order, in batches of one size; fields in evaluation view.

    Rows past the end have `_mask` 0 and are blank; so are broken records (nothing takes
    their place: it would count twice). Beside the keys of `TrainIterator`: `_mask`
    float32 (B,), `_index` int32 (B,), the record's position, -1 in padding.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: use 1 or more")

    def ordered(first: int) -> tuple[Batch, list[BrokenRecord]]:
        index = np.full(batch_size, -1, np.int32)
        mask, bad = np.zeros(batch_size, np.float32), np.zeros(batch_size, np.int32)
        rows, broken = [fields_lib.blank(fields)] * batch_size, []
        for k in range(min(batch_size, len(source) - first)):
            index[k], view = first + k, View(train=False, index=first + k)
            try:
                rows[k] = fields_lib.row(fields, source[first + k], None, view)
                mask[k] = 1
            except BrokenRecord as error:
                broken.append(error)
                bad[k] = 1
        out = fields_lib.collate(fields, rows)
        return {**out, "_mask": mask, "_index": index, "_broken": bad}, broken

    starts = grain.MapDataset.range(0, len(source), batch_size)
    batches = run(starts.map(ordered), threads=threads, workers=0)
    try:
        for batch, broken in batches:
            for error in broken:
                log.warning("broken record left out: %s", error)
            yield batch
    finally:
        batches.close()


def run(batches: grain.MapDataset, *, threads: int, workers: int) -> Iterator[Any]:
    """Iterates over a data set of batches, in its order, made ahead of time."""
    # A thread makes a whole batch: one wake-up a batch keeps the interpreter lock free,
    # and two batches ahead of each thread bounds the memory.
    ahead = max(1, threads)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * ahead)
    if not workers:
        return iter(batches.to_iter_dataset(options))
    from absl import flags  # grain's workers read them, and only `app.run` parses them

    flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=1)
    many = grain.MultiprocessingOptions(num_workers=workers)
    workers_lib.reclaim()
    batches = batches.to_iter_dataset(options)
    return iter(batches.mp_prefetch(many, worker_init_fn=workers_lib.start))
