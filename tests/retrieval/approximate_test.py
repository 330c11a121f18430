"""The inverted file against exact search. Needs FAISS (extra `faiss`)."""

import dataclasses

import jax
import numpy as np
import pytest
from image_index import FACTS

from mmjax.errors import UserError
from mmjax.parallel import Layout
from mmjax.retrieval import approximate, exact, store


def test_recall_by_hand():
    found, true = (
        np.asarray([[3, 1, -1], [5, 6, 7]]),
        np.asarray([[1, 2, 3], [7, 8, 9]]),
    )
    assert approximate.recall(found, true) == 3 / 6


def test_without_faiss(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[faiss\]'"):
        approximate.open_index(made_store(tmp_path / "x", count=20))


def made_store(folder, *, count=3000, d=16, dtype="float32"):
    facts = dataclasses.replace(FACTS, d=d, dtype=dtype, shard_rows=700)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, d))
    rows = centres[rng.integers(0, 40, count)] + 0.4 * rng.standard_normal((count, d))
    writer = store.Writer(folder, facts)
    writer.add(rows, [{"record": i, "key": str(i), "text": []} for i in range(count)])
    writer.close()
    return store.open_store(folder)


def test_all_lists_are_exact_and_fewer_nearly_so(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "_BLOCK", 500)  # more than one part to merge
    made = made_store(tmp_path / "x", dtype="float16")
    approximate.build(made, lists=20)
    exactly = exact.Exact(made.shards, Layout(devices=jax.devices()[:1]).batch_sharding)
    queries = made.rows(range(0, 3000, 30))
    truth = exactly.search(queries, 10)
    got = approximate.open_index(made).search(queries, 10, probes=20)
    np.testing.assert_allclose(got[0], truth[0], atol=1e-6)
    shares = [
        approximate.measure(made, exactly, queries, probes=probes)
        for probes in (1, 4, 20)
    ]
    assert 0.5 < shares[0] < shares[1] <= shares[2] and shares[2] > 0.999
    assert not list(made.folder.glob("*part*"))
    made.folder.rename(tmp_path / "y")  # lists are found beside the index
    moved = store.open_store(tmp_path / "y")
    again = approximate.open_index(moved).search(queries, 10, probes=20)
    np.testing.assert_array_equal(again[1], got[1])


def test_what_does_not_fit(tmp_path):
    pytest.importorskip("faiss")
    made = made_store(tmp_path / "x", count=200)
    with pytest.raises(UserError, match="has no inverted file"):
        approximate.open_index(made)
    with pytest.raises(UserError, match="300 lists for 200 rows"):
        approximate.build(made, lists=300)
    approximate.build(made, lists=4)
    with pytest.raises(UserError, match="5 probes of 4 lists"):
        approximate.open_index(made).search(made.rows([0]), 1, probes=5)
    with pytest.raises(UserError, match="is of index .*, and the index is other"):
        approximate.open_index(dataclasses.replace(made, id="other"))
    path = made.folder / approximate.LISTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="faiss.ivfdata has .* bytes of"):
        approximate.open_index(made)
