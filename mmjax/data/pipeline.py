"""Sources to batches: training batches without end, evaluation batches in order.

Row p of the training stream is a pure function of (seed, p): which record, which of its
captions, which crop. Step s of a global batch of B takes rows s * B to s * B + B, and
process k of n the k-th n-th of them, so that neither threads, worker processes, hosts
nor restarts change what is trained on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from mmjax.data.image import ImageConfig
from mmjax.data.records import BrokenRecord, Record, Source, stage1
from mmjax.errors import UserError

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
_LEAST = 1000  # rows before which a share says little: see BrokenBudget


class Tokenizer(Protocol):
    """What the pipeline needs of `mmjax.data.tokenizers.base.Tokenizer`.

    Keywords are passed only where `dropout` is above 0.
    """

    def encode(
        self, texts: Sequence[str], **dropout: Any
    ) -> tuple[np.ndarray, np.ndarray]: ...


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

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer | None,
        image_cfg: ImageConfig,
        *,
        rows: int,
        seed: int,
        dropout: float,
    ):
        self.source, self.tokenizer, self.image_cfg = source, tokenizer, image_cfg
        self.rows, self.dropout = rows, dropout
        # Shuffled before it repeats: each epoch is its own permutation. The index goes
        # along because a random_map's generator is a function of (seed, position).
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
        self.stream = order.random_map(self.row)

    def row(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One training row; a broken record gives way to the next good one."""
        record, broken = next_good(self.source, int(index))
        row: dict[str, Any] = {"broken": broken}
        if "image_tokens" in record:
            row["image_tokens"] = record["image_tokens"]
        else:
            row["image"] = self.image_cfg.train(record["image"], rng)
        if self.tokenizer is not None:
            texts = record["text"]
            row["text"] = texts[int(rng.integers(len(texts)))]
            if self.dropout:  # by the row's own generator, so it is drawn here
                drop = {"dropout": self.dropout, "rng": rng}
                row["encoded"] = self.tokenizer.encode([row["text"]], **drop)
        if self.source.class_names:
            row["label"] = record["label"]
        return row

    def batch(self, first: int) -> tuple[Batch, list[BrokenRecord]]:
        """Rows `first` to `first + rows` of the stream."""
        rows = [self.stream[first + k] for k in range(self.rows)]
        name = "image_tokens" if "image_tokens" in rows[0] else "image"
        out = {name: np.stack([row[name] for row in rows])}
        if self.tokenizer is not None:
            if self.dropout:
                pairs = zip(*(row["encoded"] for row in rows), strict=True)
                tokens, mask = map(np.concatenate, pairs)
            else:
                tokens, mask = self.tokenizer.encode([row["text"] for row in rows])
            out |= {"tokens": tokens, "tokens_mask": mask}
        if self.source.class_names:
            out["label"] = np.array([row["label"] for row in rows], np.int32)
        out["_broken"] = np.array([len(row["broken"]) for row in rows], np.int32)
        return out, [error for row in rows for error in row["broken"]]


def next_good(source: Source, index: int) -> tuple[Record, list[BrokenRecord]]:
    """Record `index` or the next that can be read, and the broken ones before it."""
    broken: list[BrokenRecord] = []
    for k in range(len(source)):
        try:
            return source[(index + k) % len(source)], broken
        except BrokenRecord as error:
            broken.append(error)
    raise UserError(
        f"all {len(source)} records of {source.name} are broken: {broken[0]}"
    )


class TrainIterator:
    """Batches of this process's rows, without end; see `train_iterator`."""

    def __init__(
        self,
        loader: Loader,
        *,
        batch_size: int,
        offset: int,
        threads: int,
        workers: int,
        budget: BrokenBudget,
    ):
        self.loader, self.batch_size, self.offset = loader, batch_size, offset
        self.threads, self.workers, self.budget = threads, workers, budget
        self.next_index = 0
        self.running: Iterator[Any] | None = None

    def __iter__(self) -> TrainIterator:
        return self

    def __next__(self) -> Batch:
        if self.running is None:
            self.running = self._start()
        batch, broken = next(self.running)
        if self.workers:  # out of shared memory, which ends with the worker
            batch = {name: np.array(array) for name, array in batch.items()}
        self.next_index += self.batch_size
        bad = batch["_broken"] > 0
        self.budget.add(len(bad), int(bad.sum()), broken)
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the next batch starts in the global stream; the same on every host."""
        return {"global_next_index": self.next_index}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues at a state, of any number of processes, workers and batch size."""
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
        batches = grain.MapDataset.range(first, first + steps * step, step)
        batches = batches.map(self.loader.batch)
        return run(batches, threads=self.threads, workers=self.workers)


def train_iterator(
    source: Source,
    tokenizer: Tokenizer | None,
    image_cfg: ImageConfig,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    workers: int = 0,
    max_broken: float = 0.01,
    dropout: float = 0.0,
) -> TrainIterator:
    """Training batches without end, every epoch in a new order.

    Args:
      source: records; those that are broken are replaced, logged and counted.
      tokenizer: None leaves captions out. One caption of a record is drawn each epoch.
      image_cfg: crop, size and flip.
      batch_size: of all processes together; each hands out its rows, in order.
      seed: with the step, decides every row.
      process_index, process_count: which share of each batch is this process's.
      threads: that prepare batches in this process; 0 prepares them when asked.
      workers: processes that do it instead; the program must then be importable
        (`if __name__ == "__main__"`).
      max_broken: share of broken records at which the run ends in a UserError.
      dropout: BPE-dropout of the captions (`text.dropout` of the tokenizer's spec).

    Yields: `image` uint8 (B, S, S, 3), or `image_tokens` int32 (B, n) of a source of
      tokens; `tokens` int32 (B, L), `tokens_mask` bool (B, L), `label` int32 (B,) where
      the source has class names, and `_broken` int32 (B,), the broken records passed
      over for the row.
    """
    if batch_size < 1 or batch_size % process_count:
        low = batch_size // process_count * process_count
        fix = " or ".join(str(n) for n in (low, low + process_count) if n > 0)
        raise UserError(
            f"batch {batch_size} must split over {process_count} processes: use {fix}"
        )
    _need_text(source, tokenizer)
    if stage1(source) and (image_cfg.flip or image_cfg.train_scale != (1, 1)):
        raise UserError(
            f"{source.name} holds image tokens, which are neither cropped nor flipped, "
            f"and the config asks for train_scale {image_cfg.train_scale} and flip "
            f"{image_cfg.flip}: set train_scale to (1.0, 1.0) and flip to False, or "
            "train on the pictures"
        )
    rows = batch_size // process_count
    return TrainIterator(
        Loader(source, tokenizer, image_cfg, rows=rows, seed=seed, dropout=dropout),
        batch_size=batch_size,
        offset=process_index * rows,
        threads=threads,
        workers=workers,
        budget=BrokenBudget(max_broken),
    )


def eval_batches(
    source: Source,
    tokenizer: Tokenizer | None,
    image_cfg: ImageConfig,
    *,
    batch_size: int,
    threads: int = 2,
) -> Iterator[Batch]:
    """The source once, in order, in batches of one size.

    Rows past the end have `_mask` 0; so have broken records, as black pictures or
    tokens 0 (nothing takes their place: it would count twice). Text is the first
    caption. Beside the keys of `train_iterator`: `_mask` float32 (B,), `_index` int32
    (B,), the record's position, -1 in padding.
    """
    _need_text(source, tokenizer)
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: use 1 or more")
    loader = _Ordered(source, tokenizer, image_cfg, batch_size)
    starts = grain.MapDataset.range(0, len(source), batch_size)
    batches = run(starts.map(loader.batch), threads=threads, workers=0)
    try:
        for batch, broken in batches:
            for error in broken:
                log.warning("broken record left out: %s", error)
            yield batch
    finally:
        batches.close()


class _Ordered:
    """Evaluation batches by the position of their first record."""

    def __init__(self, source, tokenizer, image_cfg, batch_size):
        self.source, self.tokenizer = source, tokenizer
        self.image_cfg, self.batch_size = image_cfg, batch_size
        self.tokens = stage1(source)

    def _blank(self) -> np.ndarray:
        if self.tokens:
            return np.zeros((self.batch_size, self.tokens["grid"] ** 2), np.int32)
        side = self.image_cfg.size
        return np.zeros((self.batch_size, side, side, 3), np.uint8)

    def batch(self, first: int) -> tuple[Batch, list[BrokenRecord]]:
        size = self.batch_size
        picture = self._blank()
        label, index = np.full((2, size), -1, np.int32)
        mask, bad = np.zeros(size, np.float32), np.zeros(size, np.int32)
        texts, broken = [""] * size, []
        for row in range(min(size, len(self.source) - first)):
            index[row] = first + row
            try:
                record = self.source[first + row]
            except BrokenRecord as error:
                broken.append(error)
                bad[row] = 1
                continue
            if self.tokens:
                picture[row] = record["image_tokens"]
            else:
                picture[row] = self.image_cfg.evaluate(record["image"])
            mask[row] = 1
            if self.tokenizer is not None:
                texts[row] = record["text"][0]
            label[row] = record.get("label", -1)
        out = {"image_tokens" if self.tokens else "image": picture}
        out |= {"_mask": mask, "_index": index, "_broken": bad}
        if self.tokenizer is not None:
            out["tokens"], out["tokens_mask"] = self.tokenizer.encode(texts)
        if self.source.class_names:
            out["label"] = label
        return out, broken


def run(batches: grain.MapDataset, *, threads: int, workers: int) -> Iterator[Any]:
    """Iterates over a data set of batches, in its order, made ahead of time."""
    # A thread makes a whole batch: one wake-up a batch keeps the interpreter lock free,
    # and two batches ahead of each thread bounds the memory.
    ahead = max(1, threads)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * ahead)
    if workers:
        _parse_flags()
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=1)
    out = batches.to_iter_dataset(options)
    if workers:
        many = grain.MultiprocessingOptions(num_workers=workers)
        out = out.mp_prefetch(many)
    return iter(out)


def _parse_flags() -> None:
    """Grain's workers read absl flags, which only absl's own `app.run` parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _need_text(source: Source, tokenizer: Tokenizer | None) -> None:
    """UserError when captions are asked for and the source has none."""
    if tokenizer is not None and not any(True for _ in source.texts()):
        raise UserError(
            f"{source.name} has no captions to train on: name their field with text=, "
            "or make them of class names with template=, such as "
            "template=a photo of a {}."
        )
