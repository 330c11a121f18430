"""Binary codes beside an index: distances by brute force, FAISS, and damage."""

import dataclasses

import numpy as np
import pytest
from image_index import FACTS

from mmjax.errors import UserError
from mmjax.metrics import hashing
from mmjax.retrieval import binary, store


@pytest.fixture
def index(tmp_path):
    facts = dataclasses.replace(FACTS, d=24, shard_rows=300)
    writer = store.Writer(tmp_path / "x", facts)
    rows = np.random.default_rng(0).standard_normal((700, 24)).astype(np.float32)
    writer.add(rows, [{"record": i, "key": str(i), "text": []} for i in range(700)])
    writer.close()
    return store.open_store(tmp_path / "x")


def brute(query_qb, codes_nb, k):
    apart = np.bitwise_count(query_qb[:, None] ^ codes_nb).sum(-1, dtype=np.int64)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(apart, order, 1), order


@pytest.mark.parametrize("width", [1, 3, 8, 9, 16])
def test_the_nearest_are_those_of_a_sort(monkeypatch, width):
    monkeypatch.setattr(binary, "_BLOCK", 100)
    rng = np.random.default_rng(width)
    codes = rng.integers(256, size=(730, width), dtype=np.uint8)
    queries = rng.integers(256, size=(5, width), dtype=np.uint8)
    for k in (1, 10, 150, 730):
        got = binary.nearest(binary.words(queries), binary.words(codes), k)
        for a, b in zip(got, brute(queries, codes, k), strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_index_is_coded_and_searched(index, monkeypatch):
    monkeypatch.setattr(binary, "_ROWS", 128)
    rows = index.rows(range(index.count))
    hashed = hashing.pca_itq(rows, 16)
    binary.build(index, hashed.means[0], hashed.weights[0])
    opened = binary.open_index(index, 16)
    want = hashing.packed(hashed.bits([rows])[0])
    assert (opened.codes != want).mean() < 1e-3  # signs of float32 and of float64
    scores, near = opened.search(rows[:4], 5)
    apart, order = brute(opened.codes[:4], opened.codes, 5)
    np.testing.assert_array_equal(near, order)
    np.testing.assert_allclose(scores, 1 - apart / 8)
    assert scores[:, 0].tolist() == [1.0] * 4
    pytest.importorskip("faiss")
    by_faiss, _ = opened.search(rows[:4], 5, faiss=True)
    np.testing.assert_allclose(by_faiss, scores)


def test_what_does_not_fit(index, monkeypatch):
    with pytest.raises(UserError, match="no codes of 16 bits: run `mmjax index hash"):
        binary.open_index(index, 16)
    binary.build(index, np.zeros(24), np.eye(24)[:, :16])
    opened = binary.open_index(index, 16)
    with pytest.raises(UserError, match=r"shape \(1, 5\) in an index of width 24"):
        opened.search(np.ones((1, 5)), 3)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[faiss\]'"):
        opened.search(np.ones((1, 24)), 3, faiss=True)
    with pytest.raises(UserError, match="is of index .*, and the index is other"):
        binary.open_index(dataclasses.replace(index, id="other"), 16)
    path = index.folder / "codes-16.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot read .*codes-16.npz.*again"):
        binary.open_index(index, 16)
