"""An index with the model that made it and the images it is of.

gallery = open_gallery("index/photos")
hits = gallery.search(gallery.run.embed_texts(["a dog in the snow"]), 10)
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax import parallel
from mmjax.data import image as image_lib
from mmjax.data import pipeline, records
from mmjax.data.records import Record, Source
from mmjax.data.sources import open_source, views
from mmjax.errors import UserError
from mmjax.evaluators.common import result_card
from mmjax.inference import load
from mmjax.retrieval import approximate, binary
from mmjax.retrieval import exact as exact_lib
from mmjax.retrieval import store as store_lib

SIDE = 96  # pixels of an image shown, at most


@dataclasses.dataclass(frozen=True)
class Hit:
    """One row found. record: its position in the source; text: its captions."""

    row: int
    score: float
    record: int
    key: str
    text: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """An opened index; its rows are read when first searched."""

    store: store_lib.Store
    run: load.Run

    @functools.cached_property
    def items(self) -> list[dict[str, Any]]:
        return self.store.items()

    @functools.cached_property
    def source(self) -> Any:
        """The images; UserError where they are not what was indexed."""
        facts = self.store.facts.source
        source = open_source(facts["spec"])
        if source.fingerprint() != facts["fingerprint"]:
            raise UserError(
                f"{facts['spec']} has changed since it was indexed in "
                f"{self.store.folder}: build the index again"
            )
        return source

    @functools.cached_property
    def exact(self) -> exact_lib.Exact:
        self.store.verify("rows")  # all of them are read in any case
        return exact_lib.Exact(self.store.shards, parallel.Layout().batch_sharding)

    def search(
        self,
        rows_qd: np.ndarray,
        k: int,
        *,
        probes: int | None = None,
        bits: int | None = None,
        faiss: bool = False,
    ) -> list[list[Hit]]:
        """The k nearest of every query, the best first.

        probes: look into as many lists of the inverted file; None is exact.
        bits: by Hamming distance of codes of so many bits, counted by FAISS or here.
        """
        if bits is not None:
            codes = binary.open_index(self.store, bits)
            found = codes.search(rows_qd, k, faiss=faiss)
        elif probes is None:
            found = self.exact.search(rows_qd, k)
        else:
            inverted = approximate.open_index(self.store)
            found = inverted.search(rows_qd, k, probes=probes)
        return [
            [self.hit(row, score) for score, row in zip(*pair, strict=True) if row >= 0]
            for pair in zip(*found, strict=True)
        ]

    def hit(self, row: int, score: float) -> Hit:
        item, row = self.items[int(row)], int(row)
        text = tuple(item["text"])
        return Hit(row, float(score), item["record"], item["key"], text)

    def row_of(self, record: int) -> int:
        """The row of a record; UserError where the index has none."""
        rows = [i for i, item in enumerate(self.items) if item["record"] == record]
        if rows:
            return rows[0]
        raise UserError(
            f"{self.store.folder} holds no record {record} of "
            f"{self.store.facts.source['name']}: it was broken, or is out of range"
        )

    def image(self, hit: Hit) -> np.ndarray:
        """uint8 (H, W, 3), as it is in the source."""
        return self.source[hit.record]["image"]


def open_gallery(
    folder: str | pathlib.Path,
    workdir: str | pathlib.Path | None = None,
    step: int | None = None,
) -> Gallery:
    """Opens an index with the model that made it.

    Args:
      workdir, step: where the model is, if not where it was when the index was built.

    Raises:
      UserError: the index is unfinished or damaged, or another model's.
    """
    made = store_lib.open_store(folder)
    model = made.facts.model
    if workdir is None:
        workdir, step = model["workdir"], model["step"] if step is None else step
    run = load.load_run(workdir, step)
    made.check_model(run.fingerprint, workdir)
    return Gallery(made, run)


def build_gallery(
    run: load.Run,
    spec: str,
    folder: str | pathlib.Path,
    *,
    dtype: str = "float32",
    shard_rows: int = store_lib.SHARD_ROWS,
    say: Callable[[int, int], object] = lambda done, total: None,
) -> Gallery:
    """Embeds the images of a source into an index, or goes on with an unfinished one.

    Broken records are left out. `say` is called with the records done and their
    number, after every batch.

    Raises:
      UserError: see store.Writer; no image of the source can be read; or the task
        embeds no images.
    """
    source, folder = open_source(spec), pathlib.Path(folder)
    if records.stage1(source):
        raise UserError(
            f"{source.name} holds image tokens and no images: index the source that it "
            "was made of"
        )
    facts = store_lib.Facts(
        model={
            "fingerprint": run.fingerprint,
            "task": run.config.task.name,
            "step": run.step,
            "workdir": str(run.workdir.resolve()),
        },
        source={
            "spec": spec,
            "name": source.name,
            "fingerprint": source.fingerprint(),
            "records": len(source),
        },
        preprocessing=result_card.preprocessing(run.parts.image_cfg),
        d=run.embed_images([np.zeros((8, 8, 3), np.uint8)]).shape[1],
        dtype=dtype,
        shard_rows=shard_rows,
    )
    size, variables = run.parts.cfg.batch_size, run.state.eval_vars()
    embed, field = run.parts.predict["embed_image"], run.parts.image_cfg
    writer, total = store_lib.Writer(folder, facts), len(source)
    first = writer.next_record
    if first < total:
        rest = _Passing(views.apply(source, skip=first) if first else source)
        for batch in pipeline.eval_batches(rest, {"image": field}, batch_size=size):
            good_b = np.asarray(batch["_mask"]) > 0
            index_b = np.asarray(batch["_index"])
            rows_bd = np.asarray(embed(variables, {"image": batch["image"]}))
            kept = [(int(i), *rest.kept.pop(int(i))) for i in index_b[good_b]]
            items = [
                {"record": first + i, "key": key, "text": text} for i, key, text in kept
            ]
            if items:
                writer.add(rows_bd[good_b], items)
            say(first + int(index_b.max()) + 1, total)
    writer.close()
    return Gallery(store_lib.open_store(folder), run)


class _Passing:
    """A source that keeps the key and captions of what was read."""

    def __init__(self, source: Source):
        self.source, self.kept = source, {}
        self.name, self.class_names = source.name, source.class_names
        self.texts, self.fingerprint = source.texts, source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Record:
        record = self.source[i]
        self.kept[int(i)] = str(record["key"]), list(record["text"])
        return record


def tiles(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images of any sizes as squares of one, for a sheet."""
    side = min(SIDE, max(min(one.shape[:2]) for one in images))
    return [image_lib.resize(one, side, "bilinear") for one in images]
