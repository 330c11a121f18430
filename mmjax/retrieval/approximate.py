"""The nearest rows by FAISS (Johnson et al. 2017): an inverted file on disk.

Rows are put into lists by their nearest of some centroids, and a query looks into the
`probes` lists that are nearest to it. Lists lie in a file that is mapped into memory,
so an index may be larger than that; what it misses is measured (`recall`) and written
beside it. Needs the extra `faiss`.
"""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mmjax import errors, schema
from mmjax.errors import UserError
from mmjax.retrieval import exact, store

FILE, LISTS, FACTS = "faiss.index", "faiss.ivfdata", "faiss.json"
_PER_LIST = 64  # training rows a list, between FAISS's own 39 and 256
_BLOCK = 1 << 16  # rows in memory at a time


def library() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "this search needs FAISS: pip install 'mmjax[faiss]'"
        ) from error
    return faiss


def build(index: store.Store, *, lists: int, seed: int = 0) -> None:
    """Writes the inverted file into the index's folder, in place of an older one.

    Raises:
      UserError: FAISS is not installed, or there are more lists than rows.
    """
    faiss, count = library(), index.count
    index.verify("rows")
    from faiss.contrib import ondisk

    if not 1 <= lists <= count:
        raise UserError(
            f"{lists} lists for {count} rows: use 1 to {count}, about "
            f"{max(1, round(4 * count**0.5))}"
        )
    width, folder = index.facts.d, index.folder
    rng = np.random.default_rng(seed)
    many = min(count, lists * _PER_LIST)
    sample_nd = index.rows(np.sort(rng.choice(count, many, replace=False)))
    quantizer, metric = faiss.IndexFlatIP(width), faiss.METRIC_INNER_PRODUCT
    trained = faiss.IndexIVFFlat(quantizer, width, lists, metric)
    trained.cp.seed = seed + 1  # FAISS takes 0 for a seed of its own
    trained.cp.min_points_per_centroid = 1
    trained.train(sample_nd)
    (folder / FACTS).unlink(missing_ok=True)  # until all is whole, there is none
    parts = []
    with (
        errors.writing(folder / LISTS) as inverted,
        errors.writing(folder / FILE) as file,
        contextlib.ExitStack() as stack,
    ):
        for first, rows_nd in store.blocks(index.shards, _BLOCK):
            block = faiss.clone_index(trained)
            ids_n = np.arange(first, first + len(rows_nd), dtype=np.int64)
            block.add_with_ids(np.asarray(rows_nd, np.float32), ids_n)
            parts.append(folder / f"faiss.part{len(parts)}")
            stack.callback(parts[-1].unlink, missing_ok=True)
            faiss.write_index(block, str(parts[-1]))
        ondisk.merge_ondisk(trained, [str(part) for part in parts], str(inverted))
        # The index names its lists' file: they are moved first, then found beside it.
        target = faiss.downcast_InvertedLists(trained.invlists)
        target.filename = str((folder / LISTS).resolve())
        faiss.write_index(trained, str(file))
    facts = {"of": index.id, "lists": lists, "seed": seed, "recall": []}
    facts["place"] = str(folder.resolve())
    facts["bytes"] = [(folder / name).stat().st_size for name in (FILE, LISTS)]
    _note(folder, facts)


def _note(folder: pathlib.Path, facts: dict) -> None:
    with errors.writing(folder / FACTS) as part:
        part.write_text(json.dumps(facts, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class Approximate:
    """An opened inverted file; `search` as of exact.Exact."""

    index: Any  # FAISS's
    store: store.Store
    lists: int

    def search(
        self, queries_qd: np.ndarray, k: int, *, probes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (q, k) and positions (q, k); -1 where the lists held fewer rows.

        Raises:
          UserError: as of Exact.search, or more probes than lists.
        """
        queries_qd = exact.checked(queries_qd, self.store.facts.d, k)
        if not 1 <= probes <= self.lists:
            raise UserError(f"{probes} probes of {self.lists} lists: use 1 or more")
        self.index.nprobe = probes
        scores_qk, rows_qk = self.index.search(queries_qd, min(k, self.store.count))
        exact.ranked(scores_qk, rows_qk)
        return scores_qk, rows_qk


def open_index(index: store.Store) -> Approximate:
    """The inverted file of an index.

    Raises:
      UserError: FAISS is not installed; there is none, or it is of another index.
    """
    faiss, folder = library(), index.folder
    again = f"run `mmjax index faiss {folder}`"
    if not (folder / FACTS).exists():
        raise UserError(f"{folder} has no inverted file: {again}")
    facts = schema.read_json(folder / FACTS, fix=f"{again} again")
    if facts.get("of") != index.id:
        raise UserError(
            f"the inverted file in {folder} is of index {facts.get('of')}, and "
            f"the index is {index.id}: {again} again"
        )
    for name, written in zip((FILE, LISTS), facts["bytes"], strict=True):
        path = folder / name  # a mapped file that is too short kills the process
        size = path.stat().st_size if path.is_file() else 0
        if size != written:
            raise UserError(f"{path} has {size} bytes of {written}: {again} again")
    # Lists on disk are mapped as they are; IO_FLAG_MMAP on top of that crashes FAISS
    # 1.15. Looking for them beside the index, it prints where: only when moved.
    moved = str(folder.resolve()) != facts["place"]
    flags = faiss.IO_FLAG_ONDISK_SAME_DIR if moved else 0
    try:
        opened = faiss.read_index(str(folder / FILE), flags)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"cannot read {folder / FILE}: {line}; {again}") from error
    return Approximate(opened, index, facts["lists"])


def measure(
    index: store.Store,
    exactly: exact.Exact,
    queries_qd: np.ndarray,
    *,
    probes: int,
    k: int = 10,
) -> float:
    """recall@k, the share of the k nearest that are found; written beside the index."""
    _, near_qk = open_index(index).search(queries_qd, k, probes=probes)
    share = recall(near_qk, exactly.search(queries_qd, k)[1])
    facts = schema.read_json(index.folder / FACTS)
    rows = [r for r in facts["recall"] if (r["k"], r["probes"]) != (k, probes)]
    rows += [{"k": k, "probes": probes, "queries": len(queries_qd), "recall": share}]
    _note(index.folder, facts | {"recall": rows})
    return share


def recall(found_qk: np.ndarray, true_qk: np.ndarray) -> float:
    """Share of the true k nearest that were found, over all queries."""
    hits = [np.isin(a, b).sum() for a, b in zip(true_qk, found_qk, strict=True)]
    return float(np.sum(hits) / true_qk.size)
