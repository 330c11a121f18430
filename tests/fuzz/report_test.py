"""The demo's page, of files that anything may have happened to."""

import html.parser
import importlib.util
import json
import pathlib
import shutil

import fuzzing
import numpy as np
import pytest
from PIL import Image

from mmjax_demo import report

_path = pathlib.Path(__file__).parents[1] / "demo" / "report_test.py"
_spec = importlib.util.spec_from_file_location("fuzz_report", _path)
whole = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(whole)


class Scripts(html.parser.HTMLParser):
    """What of a page runs, or is loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in ("script", "iframe", "object", "form") else []
        self.found += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "x"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(whole.SUMMARY))
    (folder / "results.json").write_text(json.dumps(whole.RESULTS))
    for n, name in enumerate(whole.PICTURES):
        pixels = np.full((8, 12 + n, 3), 40 * n, np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    for run in report.RUNS:
        (folder / run).mkdir()
        rows = [{"step": k, "loss": 4 / k, "val/loss": 5 / k} for k in range(1, 9)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / run / "metrics.jsonl").write_text(lines)
    return folder


@fuzzing.counts(10, 0.06)
def test_a_page_of_damaged_files(count, demo, ledger, tmp_path):
    """No file here has a sum: a page is written, and holds no more code than before."""
    want = report.write(demo).read_text(encoding="utf-8")
    place = tmp_path / "x"

    def attempt(rng, notes):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(demo, place)
        (place / report.FILE).unlink()
        paths = sorted(p for p in place.rglob("*") if p.is_file())
        path = rng.choice([place / "results.json", place / "summary.json", *paths])
        notes.append(path.name)
        fuzzing.alter(rng, path, notes)
        with fuzzing.warnings() as said:
            page = report.write(place).read_text(encoding="utf-8")
        if Scripts(page).found:
            return fuzzing.SILENT
        if page == want:
            return fuzzing.RIGHT
        return fuzzing.NAMED if said or "hasn't run" in page else fuzzing.UNSUMMED

    ledger.explore("report", count, attempt)
