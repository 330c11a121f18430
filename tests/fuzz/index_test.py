"""An image index, damaged: it is refused, or finds what it found before."""

import json
import shutil
import types

import fuzzing
import numpy as np
import pytest
from image_index import FACTS

from mmjax.retrieval import gallery, store

ROWS = np.random.default_rng(0).standard_normal((25, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "x"
    writer = store.Writer(folder, FACTS)
    items = [{"record": i, "key": f"k{i}", "text": ["é"]} for i in range(25)]
    writer.add(ROWS, items)
    writer.close()
    return folder


@pytest.fixture
def no_model(monkeypatch):
    """The model is not what is damaged here."""
    run = types.SimpleNamespace(fingerprint="aa")
    monkeypatch.setattr(gallery.load, "load_run", lambda workdir, step: run)


@fuzzing.counts(12, 0.06)
def test_a_damaged_index(count, index, no_model, ledger, tmp_path):
    want = gallery.open_gallery(index).search(ROWS[:3], 7)
    place = tmp_path / "x"

    def attempt(rng, notes):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(index, place)
        path = rng.choice([place / store.DONE, *sorted(place.iterdir())])
        notes.append(path.name)
        fuzzing.alter(rng, path, notes)
        found = gallery.open_gallery(place)
        return fuzzing.RIGHT if found.search(ROWS[:3], 7) == want else fuzzing.SILENT

    ledger.explore("index", count, attempt)


@fuzzing.counts(4, 0.01)
def test_a_damaged_unfinished_index(count, index, ledger, tmp_path):
    place, items = tmp_path / "x", [{"record": 25, "key": "k", "text": []}]

    def attempt(rng, notes):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(index, place)
        path = place / store.UNFINISHED
        facts = fuzzing.mutate(rng, json.loads((place / store.DONE).read_text()), notes)
        (place / store.DONE).unlink()
        path.write_text(json.dumps(facts))
        writer = store.Writer(place, FACTS)
        writer.add(ROWS[:1], items)
        writer.close()
        rows = np.concatenate(store.open_store(place).shards)
        same = len(rows) == 26 and np.allclose(rows[:25], np.concatenate(unit()))
        return fuzzing.RIGHT if same else fuzzing.SILENT

    def unit():
        return store.open_store(index).shards

    ledger.explore("index", count, attempt)
