"""The nearest rows by Hamming distance of binary codes, beside an index.

A code has the signs of a linear map of a row, 8 to a byte: 64 bits of a million rows
are 8 MB. Search counts the bits that differ, exactly, with numpy, or with FAISS.

Legend: q queries, n rows, d width, k results, w words of 64 bits, m rows of a block.
"""

import dataclasses
import functools
import pathlib

import numpy as np

from mmjax import errors
from mmjax.errors import UserError
from mmjax.retrieval import approximate, exact, store

_ROWS = 1 << 16  # that are coded at a time
_BLOCK = 1 << 14  # compared at a time: 128 KiB a word, which stay in a core's cache
_PARTS = ("of", "codes", "mean", "weights")


def _file(index: store.Store, bits: int) -> pathlib.Path:
    return index.folder / f"codes-{bits}.npz"


def build(index: store.Store, mean_d: np.ndarray, weights_db: np.ndarray) -> None:
    """Codes every row and writes `codes-BITS.npz` into the index's folder.

    mean_d, weights_db: the map, whose columns give a bit each; a multiple of 8.
    """
    index.verify("rows")
    mean_d, weights_db = np.float32(mean_d), np.float32(weights_db)
    codes = [
        coded(np.asarray(rows_nd, np.float32), mean_d, weights_db)
        for _, rows_nd in store.blocks(index.shards, _ROWS)
    ]
    arrays = {"of": np.array(index.id), "codes": np.concatenate(codes)}
    with errors.writing(_file(index, weights_db.shape[1])) as part:
        with part.open("wb") as file:
            np.savez(file, **arrays, mean=mean_d, weights=weights_db)


def coded(
    rows_nd: np.ndarray, mean_d: np.ndarray, weights_db: np.ndarray
) -> np.ndarray:
    """The codes of rows, uint8 (n, bits / 8)."""
    return np.packbits((rows_nd - mean_d) @ weights_db > 0, axis=1)


@dataclasses.dataclass(frozen=True)
class Binary:
    """Opened codes; `search` as of exact.Exact."""

    codes: np.ndarray  # uint8 (n, bits / 8)
    mean: np.ndarray
    weights: np.ndarray

    @functools.cached_property
    def _words(self) -> np.ndarray:
        return words(self.codes)

    def search(
        self, queries_qd: np.ndarray, k: int, *, faiss: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (q, k), 1 - 2 x the share of bits that differ, and positions (q, k).

        Equal distances are in the order of rows; with FAISS, in none.

        Raises:
          UserError: as of Exact.search; with `faiss`, it is not installed.
        """
        queries_qd = exact.checked(queries_qd, len(self.mean), k)
        query_qb = coded(queries_qd, self.mean, self.weights)
        k, bits = min(k, len(self.codes)), self.weights.shape[1]
        if faiss:
            flat = approximate.library().IndexBinaryFlat(bits)
            flat.add(self.codes)
            apart_qk, rows_qk = flat.search(query_qb, k)
        else:
            apart_qk, rows_qk = nearest(words(query_qb), self._words, k)
        return (1 - 2 * apart_qk / bits).astype(np.float32), rows_qk


def words(codes_nb: np.ndarray) -> np.ndarray:
    """Codes, uint8 (n, bits / 8), as words, uint64 (w, n), filled up with zeros."""
    spare = -codes_nb.shape[1] % 8
    padded = np.ascontiguousarray(np.pad(codes_nb, ((0, 0), (0, spare))))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def nearest(
    query_wq: np.ndarray, codes_wn: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances int64 (q, k) and positions int64 (q, k), by distance and then by row.

    query_wq, codes_wn: of `words`. k is at most n.
    """
    best: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for start in range(0, codes_wn.shape[1], _BLOCK):
        block_wm = codes_wn[:, start : start + _BLOCK]
        differ_wm = np.empty_like(block_wm)  # anew, it would cost as much as counting
        count_wm = np.empty(block_wm.shape, np.uint8)
        for i, query_w in enumerate(query_wq.T):
            np.bitwise_xor(block_wm, query_w[:, None], out=differ_wm)
            np.bitwise_count(differ_wm, out=count_wm)
            one = len(count_wm) == 1
            apart_m = count_wm[0] if one else count_wm.sum(0, dtype=np.uint16)
            near = np.arange(len(apart_m))
            apart_k, row_k = best.get(i, (apart_m[:0], near[:0]))
            if len(apart_k) == k:  # what is as far comes after
                if apart_m.min() >= apart_k[-1]:
                    continue
                near = np.flatnonzero(apart_m < apart_k[-1])
            apart_k = np.concatenate([apart_k, apart_m[near]])
            row_k = np.concatenate([row_k, near + start])
            order_k = np.argsort(apart_k, kind="stable")[:k]
            best[i] = apart_k[order_k], row_k[order_k]
    apart, rows = zip(*best.values(), strict=True)
    return np.stack(apart).astype(np.int64), np.stack(rows)


def open_index(index: store.Store, bits: int) -> Binary:
    """The codes of an index.

    Raises:
      UserError: there are none of so many bits, or they are damaged, or another's.
    """
    path = _file(index, bits)
    again = f"run `mmjax index hash {index.folder} --bits {bits}`"
    if not path.exists():
        raise UserError(f"{index.folder} has no codes of {bits} bits: {again}")
    try:
        with np.load(path, allow_pickle=False) as saved:
            of, codes, mean, weights = (saved[name] for name in _PARTS)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"cannot read {path}: {error}; {again} again") from None
    if str(of) != index.id or len(codes) != index.count:
        raise UserError(
            f"{path} is of index {of}, and the index is {index.id}: {again} again"
        )
    return Binary(codes, mean, weights)
