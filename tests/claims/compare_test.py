"""Runs side by side, and the page of one run, from what runs leave."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mmjax import cli
from mmjax.claims import compare
from mmjax.errors import UserError


@pytest.fixture
def runs(tmp_path):
    """Two configs with three seeds each, and a seed more of the second."""
    for lr, seeds in ((0.1, 3), (0.2, 4)):
        for seed in range(seeds):
            out = tmp_path / f"lr={lr}-{seed}"
            out.mkdir()
            task = {"name": "clip", "width": 8}
            config = {"seed": seed, "steps": 4, "batch_size": 2, "task": task}
            config |= {"optim": {"lr": lr}}
            saved = {"format": 2, "config": config, "fields": {}}
            (out / "run.json").write_text(json.dumps(saved))
            value = 0.5 + lr + 0.01 * seed**2 * lr
            ends = {"val/top1_lo": value - 0.02, "val/top1_hi": value + 0.02}
            rows = [{"step": s, "loss": 3 - s / 4, "val/top1": value} for s in (2, 4)]
            rows[1] |= ends
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (out / "metrics.jsonl").write_text(text)
    return tmp_path


def test_groups_tables_and_tests(runs):
    groups = compare.groups([runs])
    assert [(g.label, len(g.runs)) for g in groups] == [("lr=0.1", 3), ("lr=0.2", 4)]
    assert compare.configs(groups)[1:] == [["optim.lr", "0.1", "0.2"]]
    found = compare.numbers(groups)
    assert compare.metrics(found, ()) == ["loss", "val/top1"]
    head, row = compare.tests(found, ["val/top1"])
    delta = [0.1 + 0.01 * seed**2 * 0.1 for seed in range(3)]
    assert row[1] == "lr=0.2 less lr=0.1" and row[4] == "3"
    assert row[2].startswith(f"{np.mean(delta):.3f} (")
    assert float(row[3]) == pytest.approx(stats.ttest_1samp(delta, 0).pvalue, rel=0.01)
    page = compare.page(groups, found, ["val/top1"])
    assert page.count("<svg") == 2 and 'role="img" aria-label="Line chart' in page


def test_one_run_is_compared_without_tests(runs, capsys):
    out = runs / "page.html"
    words = [str(runs / "lr=0.1-0"), "--metric", "val/top1", "--out", str(out)]
    assert cli.main(["compare", *words]) == 0
    assert "0.600 (0.580 to 0.620, examples alone)" in capsys.readouterr().out
    assert "Paired" not in out.read_text()


def test_what_cannot_be_compared(runs):
    with pytest.raises(UserError, match="no metric|no run has a metric 'val/top'"):
        compare.metrics(compare.numbers(compare.groups([runs])), ["val/top"])
    with pytest.raises(UserError, match="not a run of mmjax"):
        compare.groups([runs / "nothing"])
    twin = runs / "twin"
    twin.mkdir()
    (twin / "run.json").write_text((runs / "lr=0.1-0" / "run.json").read_text())
    with pytest.raises(UserError, match="same config and seed 0"):
        compare.groups([runs])


def test_a_report_has_images_first(runs, capsys):
    run = runs / "lr=0.2-1"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(run / "samples_best.png")
    (run / "cards").mkdir()
    (run / "cards" / "val.json").write_text('{"note": "<script>"}')
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    order = [text.index(f'<section id="{s}"') for s in ("images", "curves", "numbers")]
    assert order == sorted(order)
    assert 'alt="Image samples best of the folder lr=0.2-1"' in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert "--config.optim.lr=0.2" in text and "step 4 of 4" in text
    assert cli.main(["report", str(runs)]) == 2
    assert "holds runs: give one of" in capsys.readouterr().err
