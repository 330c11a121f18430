"""KiloGram's records, of files made here; the real ones where they are."""

import gzip
import json
import os
import pathlib

import numpy as np
import pytest

from mmjax.data.sources import kilogram, open_source
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    part_map = np.zeros((1, 32, 32), np.uint8)
    for k in range(7):
        part_map[0, 4 + 2 * k : 6 + 2 * k, 10:24] = (
            k + 1
        )  # seven bars, one below another
    arrays = {"image": 30 * part_map, "part_map": part_map, "tangram": ["page-A"]}
    np.savez(tmp_path / "k.npz", **arrays)
    note = {
        "tangram": 0,
        "whole": "a tower",
        "parts": {str(k): f"bar {k}" for k in range(1, 8)},
    }
    with gzip.open(tmp_path / "k.jsonl.gz", "wt") as file:
        file.write(json.dumps(note) + "\n")
    return tmp_path


def test_records(folder):
    source = open_source(f"kilogram:{folder}")
    record = source[0]
    assert record["text"] == ["a tower"] and record["phrases"][6] == "bar 7"
    assert record["boxes"][2].tolist() == [10, 8, 14, 2]
    grid = record["regions"][:, :64].reshape(7, 8, 8)
    # 14 pixels wide and high: a cell is 1.75 of them, and all of it is filled once
    assert grid.sum() == pytest.approx(14 * 14 / 1.75**2, rel=1e-5)
    rows = (grid.sum(2) * np.arange(8)).sum(1) / grid.sum((1, 2))
    assert (np.diff(rows) > 0).all()
    assert record["key"] == "page-A_0" and record["label"] == 0


def test_refusals(folder):
    with pytest.raises(UserError, match="holds 1 .npz, 0 .jsonl.gz"):
        (folder / "k.jsonl.gz").rename(folder / "other.gz")
        kilogram.open(str(folder))
    with gzip.open(folder / "k.jsonl.gz", "wt") as file:
        file.write('{"tangram": 0, "whole": "x", "parts": {"1": "a"}}\n')
    with pytest.raises(UserError, match="line 1: parts are not 1 to 7"):
        kilogram.open(str(folder))


def test_real_data():
    root = pathlib.Path(os.environ.get("MMJAX_DATA", "")) / "kilogram"
    if not root.is_dir():
        pytest.skip("MMJAX_DATA names no folder with kilogram")
    parts = [
        open_source(f"kilogram:{root}?group=_&part={p}") for p in ("train", "held_out")
    ]
    assert sum(map(len, parts)) == 3168
    tangrams = [{part[i]["label"] for i in range(len(part))} for part in parts]
    assert not tangrams[0] & tangrams[1] and len(tangrams[1]) > 5
