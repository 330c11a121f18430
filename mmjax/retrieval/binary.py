"""The nearest rows by Hamming distance of binary codes, beside an index.

A code has the signs of a linear map of a row, 8 to a byte: 64 bits of a million rows
are 8 MB. Search counts the bits that differ, exactly, with numpy, or with FAISS.

Legend: q queries, n rows, d width, k results, w words of a code, of 64 bits.
"""

import dataclasses
import pathlib

import numpy as np

from mmjax import errors
from mmjax.errors import UserError
from mmjax.retrieval import approximate, exact, store

_BLOCK = 1 << 16  # rows that are coded, or compared, at a time
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
        for _, rows_nd in store.blocks(index.shards, _BLOCK)
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
            apart_qk, rows_qk = nearest(query_qb, self.codes, k)
        return (1 - 2 * apart_qk / bits).astype(np.float32), rows_qk


def nearest(
    query_qb: np.ndarray, codes_nb: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances int64 (q, k) and positions int64 (q, k), by count and then by row.

    query_qb, codes_nb: uint8, 8 bits a byte. k is at most n.
    """
    query_qw, codes_nw = _words(query_qb), _words(codes_nb)
    found = [_nearest(one_w, codes_nw, k) for one_w in query_qw]
    apart, rows = zip(*found, strict=True)
    return np.stack(apart), np.stack(rows)


def _words(codes_nb: np.ndarray) -> np.ndarray:
    """Bytes as uint64 (n, w), padded by bytes that all codes share."""
    spare = -codes_nb.shape[1] % 8
    return np.ascontiguousarray(np.pad(codes_nb, ((0, 0), (0, spare)))).view(np.uint64)


def _nearest(
    query_w: np.ndarray, codes_nw: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """One query's; blocks after the first keep what is nearer than the k-th so far."""
    apart_k, row_k = np.zeros(0, np.uint16), np.zeros(0, np.int64)
    for start in range(0, len(codes_nw), _BLOCK):
        differ_mw = np.bitwise_count(codes_nw[start : start + _BLOCK] ^ query_w)
        one = differ_mw.shape[1] == 1
        apart_m = differ_mw[:, 0] if one else differ_mw.sum(1, dtype=np.uint16)
        near = np.arange(len(apart_m))
        if len(apart_k) == k:
            near = np.flatnonzero(apart_m < apart_k[-1])
        if not len(near):
            continue
        apart_k = np.concatenate([apart_k, apart_m[near]])
        row_k = np.concatenate([row_k, near + start])
        order_k = np.argsort(apart_k, kind="stable")[:k]
        apart_k, row_k = apart_k[order_k], row_k[order_k]
    return apart_k.astype(np.int64), row_k


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
