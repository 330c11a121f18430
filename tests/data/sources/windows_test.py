"""Windows of long series: which steps, of which record, with what noise."""

import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def spec(tmp_path):
    """Two records whose steps say their own time: 12 and 6, then 6 and 3, then 3."""
    heard = [np.arange(n, dtype=np.float32) for n in (12, 6, 3)]
    seen = [np.arange(n, dtype=np.float32) for n in (6, 3, 3)]
    offsets = {
        f"{k}_offsets": np.cumsum([0, *map(len, rows)])
        for k, rows in (("sound", heard), ("lips", seen))
    }
    columns = {"sound": np.concatenate(heard), "lips": np.concatenate(seen)}
    arrays = {name: np.stack([x, -2 * x], 1) for name, x in columns.items()}
    np.savez(
        tmp_path / "x.npz", **arrays, **offsets, label=[0, 1, 1], key=["a", "b", "c"]
    )
    inner = f"npz:{tmp_path}/x.npz"
    return {"kind": "windows", "source": inner, "series": {"sound": 4, "lips": 2}}


def test_windows_of_two_rates_begin_together(spec):
    source = open_source(ConfigDict(spec))
    assert len(source) == 5 + 2  # of 6 and 3 steps of the slower series
    for i in range(len(source)):
        record, start = source[i], int(source.starts[i])
        name = "a" if i < 5 else "b"
        assert record["key"] == f"{name}/{start}"
        assert record["label"] == int(name == "b")
        np.testing.assert_array_equal(record["sound"][:, 0], 2 * start + np.arange(4))
        np.testing.assert_array_equal(record["lips"][:, 1], -2 * (start + np.arange(2)))
    np.testing.assert_array_equal(source.groups, [0] * 5 + [1] * 2)
    np.testing.assert_allclose(source.places, [0, 0.25, 0.5, 0.75, 1, 0, 1])
    (left,) = source.left_out
    assert "{'lips': 3, 'sound': 3} are fewer than a window's" in str(left)
    assert [source.at(i) for i in (0, 4, 5)] == [0, 0, 1]
    assert source.captions(6) == [] and source.fields(6)["key"] == "b/1"
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[3]["lips"], source[3]["lips"])
    fewer = open_source({**spec, "stride": 2})
    assert [r["key"] for r in fewer] == ["a/0", "a/2", "a/4", "b/0"]
    assert fewer.fingerprint() != source.fingerprint()


def test_centred_series_lose_their_own_mean(spec):
    source = open_source({**spec, "center": True, "series": {"sound": 12, "lips": 6}})
    assert len(source) == 1
    np.testing.assert_allclose(source[0]["sound"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(source[0]["lips"][:, 0]), 1)


def test_noise_has_the_ratio_and_is_the_same_each_time(spec):
    long = {**spec, "source": "warps:train?count=1&frames=4000&warp=0"}
    long["series"] = {"first": 2000, "second": 1000}
    clean = open_source(long)
    noisy = open_source({**long, "noisy": "first", "snr": 6})
    apart = noisy[0]["first"] - clean[0]["first"]
    whole = clean.whole[0]["first"].std(0)
    np.testing.assert_allclose(apart.std(0) / whole, 10 ** (-6 / 20), rtol=0.1)
    np.testing.assert_array_equal(noisy[0]["second"], clean[0]["second"])
    again = open_source({**long, "noisy": "first", "snr": 6})
    np.testing.assert_array_equal(again[0]["first"], noisy[0]["first"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series": {}}, "give every series' steps"),
        ({"stride": 0}, "stride=0"),
        ({"series": {"sound": 40, "lips": 20}}, "no record is as long as a window"),
        ({"series": {"mouth": 4}}, "has no 'mouth': it has"),
        ({"snr": 3}, "name one of sound, lips"),
        ({"noisy": "sound"}, "give snr in decibels"),
        ({"path": "npz:x"}, "either a path or a source"),
    ],
)
def test_refusals(spec, change, message):
    with pytest.raises(UserError, match=message):
        open_source({**spec, **change})
