"""Features of records and regions: pooling by brute force, files that are a source."""

import sys
import types

import numpy as np
import pytest

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import features, load


def test_pooled_is_the_mean_of_the_pixels_below():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(4, 4, 3)).astype(np.float32)
    pixels = grid.repeat(4, 0).repeat(4, 1)  # 16 pixels a side
    boxes = np.float32([[0, 0, 16, 16], [3, 5, 6, 2], [15, 15, 1, 1], [4, 4, 0, 3]])
    got = features.pooled(grid, boxes, 16)
    for (x, y, w, h), row in zip(boxes.astype(int), got, strict=True):
        want = pixels[y : y + h, x : x + w].mean((0, 1)) if w * h else 0
        np.testing.assert_allclose(row, want, atol=1e-5)


def test_cells_tile_the_image_row_by_row():
    boxes = features.cells((6, 12, 3), 3)
    assert boxes.shape == (9, 4) and (boxes[:, 2:] == [4, 2]).all()
    assert boxes[1].tolist() == [4, 0, 4, 2] and boxes[3].tolist() == [0, 2, 4, 2]


@pytest.mark.parametrize("spec", ["cells", "cells:0", "cell:3", "whole,boxes:2"])
def test_unknown_regions_are_refused(spec):
    with pytest.raises(UserError, match="use one of whole, cells:SIDE"):
        features.Regions(spec)


def test_regions_that_are_not_there_are_refused(monkeypatch):
    record = {"key": "a7", "image": np.zeros((8, 8, 3), np.uint8)}
    with pytest.raises(UserError, match="record a7 has no boxes, only .*image"):
        features.Regions("boxes").boxes(record)
    without = types.SimpleNamespace(__version__="5.0")
    monkeypatch.setitem(sys.modules, "cv2", without)
    with pytest.raises(UserError, match="ximgproc, and 5.0 here is without: pip"):
        features.Regions("search:4").boxes(record)


SOURCE = "shapes:val?size=32&count=5&objects=2"


@pytest.mark.parametrize("options", [["whole,cells:2"], ["boxes", "--crop"]])
def test_embed_writes_records_of_a_source(tiny_run, options, tmp_path, capsys):
    out = tmp_path / "f.npz"
    argv = ["embed", tiny_run, "--records", SOURCE, "--out", out, "--regions", *options]
    assert cli.main([str(a) for a in argv]) == 0, capsys.readouterr().err
    records, originals = open_source(f"npz:{out}?text=captions"), open_source(SOURCE)
    run = load.load_run(tiny_run)
    for i, original in enumerate(originals[k] for k in range(5)):
        record = records[i]
        assert record["text"] == original["text"] and record["key"] == original["key"]
        view = run.view(original["image"])[None]
        want = run.parts.predict["feature_map"](
            run.state.eval_vars(), {"image": view.repeat(4, 0)}
        )
        np.testing.assert_allclose(record["features"], want["features"][0], atol=1e-4)
        if "--crop" in options:
            np.testing.assert_array_equal(record["boxes"], original["boxes"])
            assert record["regions"].shape == (
                len(original["boxes"]),
                records[0]["features"].size,
            )
            continue
        np.testing.assert_allclose(
            record["regions"][0], want["map"][0].mean((0, 1)), atol=2e-3
        )
        assert record["regions"].shape[0] == 5 and record["boxes"].shape == (5, 4)


def test_runs_without_features_are_refused(tiny_run, capsys, tmp_path):
    argv = ["embed", tiny_run, "--records", SOURCE, "--crop", "--out", tmp_path / "f"]
    assert cli.main([str(a) for a in argv]) == 2
    assert "--crop is of --regions" in capsys.readouterr().err
