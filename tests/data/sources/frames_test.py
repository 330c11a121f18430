import pickle

import numpy as np
import pytest
from PIL import Image

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def clips(tmp_path):
    for clip, shades in {"walk/a": 12, "walk/b": 2, "run/c": 1}.items():
        (tmp_path / clip).mkdir(parents=True)
        for k in range(shades):
            Image.new("RGB", (6, 4), (k, 0, 0)).save(tmp_path / clip / f"frame{k}.png")
    return tmp_path


def test_folders_of_frames(clips):
    source = open_source(f"frames:{clips}?label=parent")
    assert len(source) == 3 and source.class_names == ("run", "walk")
    assert [source[i]["key"] for i in range(3)] == ["run/c", "walk/a", "walk/b"]
    record = source[1]
    assert record["frames"].shape == (12, 4, 6, 3) and record["label"] == 1
    assert record["frames"][:, 0, 0, 0].tolist() == list(range(12))  # 2 before 10
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()
    Image.new("RGB", (6, 5)).save(clips / "walk/b/frame9.png")
    with pytest.raises(BrokenRecord, match=r"unlike sizes: \[\(4, 6\), \(5, 6\)\]"):
        open_source(f"frames:{clips}")[2]
    (clips / "run/c/frame0.png").write_bytes(b"nothing")
    with pytest.raises(BrokenRecord, match=r"frame0\.png: cannot decode"):
        open_source(f"frames:{clips}")[0]


def test_strips_of_another_source(tmp_path):
    strips = np.arange(2 * 12 * 5, dtype=np.uint8).reshape(2, 12, 5)
    np.savez(tmp_path / "x.npz", image=strips, label=[1, 0], mfcc=np.zeros((2, 7)))
    source = open_source(f"frames:npz:{tmp_path}/x.npz?height=4")
    assert source[1]["frames"].shape == (3, 4, 5, 3) and "image" not in source[1]
    np.testing.assert_array_equal(source[1]["frames"][2, ..., 0], strips[1, 8:])
    assert source[0]["label"] == 1 and source[0]["mfcc"].shape == (7,)
    with pytest.raises(BrokenRecord, match="a strip of 12 rows has no frames of 5"):
        open_source(f"frames:npz:{tmp_path}/x.npz?height=5")[0]
    with pytest.raises(UserError, match="give height="):
        open_source({"kind": "frames", "source": f"npz:{tmp_path}/x.npz"})


def test_bundle_avletters(bundle):
    strips = f"npz:{bundle}/avletters/avletters-reps12.npz?label=letter"
    source = open_source({"kind": "frames", "source": strips, "height": 30})
    record = source[0]
    assert record["frames"].shape == (record["n_frames"], 30, 40, 3)
    assert record["mfcc"].shape == (53, 26) and len(source.class_names) == 26
