"""Warped series and their truth."""

import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source, warped
from mmjax.errors import UserError


@pytest.fixture
def spec(tmp_path):
    """Records whose series say their own time: 50 and 25 frames a second."""
    time = np.arange(40, dtype=np.float32)
    lips = np.repeat(np.arange(20, dtype=np.uint8), 6).reshape(20, 2, 3)
    arrays = {"sound": np.stack([time, -time], 1), "lips": lips}
    stacked = {name: np.stack([value] * 3) for name, value in arrays.items()}
    np.savez(tmp_path / "x.npz", **stacked, key=np.array(["a", "b", "c"]))
    inner = {"kind": "npz", "path": f"{tmp_path}/x.npz"}
    names = {"first": "sound", "second": "lips", "first_rate": 50, "second_rate": 25}
    return {"kind": "warped", "source": inner, **names}


def test_truth_is_where_a_frame_came_from(spec):
    source = open_source(ConfigDict(spec))
    starts = set()
    for i in range(3):
        record = source[i]
        first, truth = record["first"], record["truth"]
        assert first.shape == (len(truth), 2) and record["second"].shape == (20, 6)
        heard = np.minimum(first[:, 0], 38)  # no lips after frame 19
        np.testing.assert_allclose(heard, 2 * truth[:, 0], atol=1e-4)
        np.testing.assert_allclose(record["second"][:, 0] * 255, np.arange(20))
        assert (np.diff(truth[:, 0]) > 0).all() and 0 <= truth.min()
        assert np.diff(truth[:, 0]).std() > 0.02
        starts.add(float(truth[0, 0]))
    assert len(starts) == 3
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[2]["first"], record["first"])
    other = open_source({**spec, "seed": 1})
    assert other.fingerprint() != source.fingerprint()


def test_without_warp_or_shift_it_is_the_series():
    at = warped.places(np.random.default_rng(0), 30, warp=0, shift=0)
    np.testing.assert_allclose(at, np.arange(30), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second_rate": 0}, r"no sampling rate of second \(lips\): give second_rate"),
        ({"first": ""}, "have no first"),
        ({"warp": 1.0}, "warp=1.0"),
        ({"path": "npz:x"}, "either a path or a source"),
    ],
)
def test_bad_input(spec, change, message):
    with pytest.raises(UserError, match=message):
        open_source(spec | change)


def test_broken_records(spec):
    with pytest.raises(BrokenRecord, match="has no 'voice': it has"):
        open_source(spec | {"first": "voice"})[0]
    with pytest.raises(BrokenRecord, match="key is"):
        open_source(spec | {"first": "key"})[0]


def test_drawn_warps():
    source = open_source("warps:train?count=5&frames=24&noise=0")
    record = source[3]
    assert record["second"].shape == (16, 6)
    assert record["first"].shape == (len(record["truth"]), 4)
    assert 0 <= record["truth"].min() and record["truth"].max() <= 15.001
    assert (open_source("warps:val")[3]["first"][0] != record["first"][0]).any()
    for bad in ("warps:test", "warps:train?frames=4"):
        with pytest.raises(UserError, match="use"):
            open_source(bad)
