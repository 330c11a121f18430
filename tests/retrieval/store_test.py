"""Indices on disk: what is written is read, stopped builds go on, damage is seen."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from image_index import FACTS

from mmjax.errors import UserError
from mmjax.retrieval import store


def rows(count=25):
    return np.random.default_rng(0).standard_normal((count, 6)).astype(np.float32)


def items(start, stop):
    return [{"record": i, "key": f"k{i}", "text": ["é"]} for i in range(start, stop)]


def write(folder, facts=FACTS, count=25):
    writer = store.Writer(folder, facts)
    for start in range(0, count, 4):
        stop = min(start + 4, count)
        writer.add(rows()[start:stop], items(start, stop))
    writer.close()
    return store.open_store(folder)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("float32", np.float32),
        ("float16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
    ],
)
def test_what_is_written_is_read(tmp_path, dtype, kept):
    made = write(tmp_path / "x", dataclasses.replace(FACTS, dtype=dtype))
    unit = rows() / np.linalg.norm(rows(), axis=1, keepdims=True)
    assert [len(shard) for shard in made.shards] == [10, 10, 5]
    assert all(isinstance(shard, np.memmap) for shard in made.shards)
    np.testing.assert_array_equal(np.concatenate(made.shards), unit.astype(kept))
    np.testing.assert_array_equal(
        made.rows([24, 3]), unit.astype(kept)[[24, 3]].astype(np.float32)
    )
    assert made.items() == items(0, 25)
    assert made.count == 25 and made.facts.d == 6
    made.verify()
    names = {p.name for p in (tmp_path / "x").iterdir()}
    assert names == {"index.json"} | {
        f"{kind}-0000{i}.{end}"
        for i in range(3)
        for kind, end in (("rows", "npy"), ("items", "jsonl"))
    }


def test_a_stopped_build_goes_on(tmp_path):
    whole = write(tmp_path / "whole")
    stopped = store.Writer(tmp_path / "x", FACTS)
    stopped.add(rows()[:17], items(0, 17))  # ten are a shard, seven are lost
    with pytest.raises(UserError, match="unfinished index: run the same"):
        store.open_store(tmp_path / "x")
    moved = dataclasses.replace(FACTS, model={**FACTS.model, "workdir": "/moved"})
    again = store.Writer(tmp_path / "x", moved)
    assert again.next_record == 10
    again.add(rows()[10:], items(10, 25))
    again.close()
    for path in whole.folder.glob("*-*"):
        assert (tmp_path / "x" / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_build_of_something_else(tmp_path):
    store.Writer(tmp_path / "x", FACTS).add(rows()[:12], items(0, 12))
    other = dataclasses.replace(FACTS, model={**FACTS.model, "fingerprint": "bb"})
    with pytest.raises(UserError, match="unfinished index with model.*'aa'.*'bb'"):
        store.Writer(tmp_path / "x", other)
    other = dataclasses.replace(FACTS, dtype="float16")
    with pytest.raises(UserError, match="with dtype float32.*has float16"):
        store.Writer(tmp_path / "x", other)


def test_folders_that_are_taken(tmp_path):
    write(tmp_path / "x")
    with pytest.raises(UserError, match="is a finished index"):
        store.Writer(tmp_path / "x", FACTS)
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine.txt").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        store.Writer(tmp_path / "y", FACTS)
    with pytest.raises(UserError, match="is no index"):
        store.open_store(tmp_path / "y")
    empty = store.Writer(tmp_path / "z", FACTS)
    with pytest.raises(UserError, match="no rows"):
        empty.close()


def test_rows_that_do_not_fit(tmp_path):
    writer = store.Writer(tmp_path / "x", FACTS)
    with pytest.raises(UserError, match="width 6"):
        writer.add(np.ones((2, 5)), items(0, 2))
    with pytest.raises(UserError, match="NaN or Inf"):
        writer.add(np.full((1, 6), np.inf), items(0, 1))
    with pytest.raises(UserError, match="dtype 'int8'"):
        dataclasses.replace(FACTS, dtype="int8")


def test_damage_is_seen(tmp_path):
    made = write(tmp_path / "x")
    path = tmp_path / "x" / "rows-00001.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf"has {len(data) - 1} bytes, and {len(data)}"):
        store.open_store(tmp_path / "x")
    path.unlink()
    with pytest.raises(UserError, match="rows-00001.npy is missing"):
        store.open_store(tmp_path / "x")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="rows-00001.npy has SHA-256"):
        store.open_store(tmp_path / "x").verify()
    path.write_bytes(data)
    noted = tmp_path / "x" / "index.json"
    facts = json.loads(noted.read_text())
    noted.write_text(json.dumps({**facts, "d": 7}))
    with pytest.raises(UserError, match=r"is \(10, 6\), and index.json says \(10, 7\)"):
        store.open_store(tmp_path / "x")
    noted.write_text(json.dumps({**facts, "version": 9}))
    with pytest.raises(UserError, match="of version 9"):
        store.open_store(tmp_path / "x")
    noted.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        store.open_store(tmp_path / "x")
    with pytest.raises(UserError, match="made by weights aa .step 3 of /runs/x.*bb"):
        made.check_model("bb", "/runs/y")
    made.check_model("aa", "/runs/y")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": {"step": 3}}, "model has no fingerprint"),
        ({"source": "s"}, "source: expected"),
        ({"d": "6"}, "d: expected int"),
        ({"count": 24}, "count is 24"),
        ({"shards": 3}, "shards: expected"),
        ({"shards": [{"rows": 25}]}, "'last_record' is missing"),
    ],
)
def test_a_damaged_index_json_says_where(tmp_path, changed, words):
    write(tmp_path / "x")
    noted = tmp_path / "x" / "index.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | changed))
    with pytest.raises(UserError, match=f"{words}.*damaged, build the index again"):
        store.open_store(tmp_path / "x")


def test_a_damaged_header_of_rows(tmp_path):
    write(tmp_path / "x")
    path = tmp_path / "x" / "rows-00001.npy"
    path.write_bytes(path.read_bytes().replace(b"descr", b"dewcr"))
    with pytest.raises(UserError, match="rows-00001.npy is damaged .*correct keys"):
        store.open_store(tmp_path / "x")
