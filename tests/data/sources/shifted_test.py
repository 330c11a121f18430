"""A source under a shift: other pictures, the same everything else."""

import pickle

import numpy as np
import pytest

from mmjax.data import corruptions
from mmjax.data.sources import open_source
from mmjax.errors import UserError

INNER = "shapes:val?size=16&count=12"


def test_changes_the_pictures_and_nothing_else():
    plain = open_source(INNER)
    spec = {"kind": "shifted", "source": INNER, "shift": "noise", "severity": 2}
    shifted = open_source(spec)
    assert len(shifted) == len(plain)
    assert shifted.class_names == plain.class_names
    assert list(shifted.texts()) == list(plain.texts())
    assert shifted.fingerprint() != plain.fingerprint()
    assert shifted.fingerprint() != open_source(dict(spec, severity=3)).fingerprint()
    for i in (0, 5):
        got, want = shifted[i], plain[i]
        noise = got.pop("image").astype(float) - want.pop("image")
        assert 5 < noise.std() < 35
        same = ("text", "key", "label")
        assert [got.get(k) for k in same] == [want.get(k) for k in same]
    again = pickle.loads(pickle.dumps(shifted))
    np.testing.assert_array_equal(again[3]["image"], shifted[3]["image"])


def test_a_picture_meets_the_same_noise_wherever_it_stands():
    spec = {"kind": "shifted", "source": INNER, "shift": "noise", "severity": 2}
    part = open_source(dict(spec, source=f"{INNER}&skip=4"))
    whole = open_source(spec)
    np.testing.assert_array_equal(part[1]["image"], whole[5]["image"])
    assert np.any(whole[5]["image"] != open_source(dict(spec, seed=1))[5]["image"])


def test_a_path_without_options_fits_in_one_line(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=image)
    source = open_source(f"shifted:npz:{tmp_path}/set.npz?shift=jpeg&severity=4")
    # What comes out is what the function gives for the picture.
    want = corruptions.apply("jpeg", image[1], 4, 0)
    np.testing.assert_array_equal(source[1]["image"], want)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"shift": "fog"}, "no shift is called 'fog'"),
        ({"shift": "blur", "severity": 0}, "severity 0"),
        ({"shift": "blur", "path": INNER}, "either a path or a source"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError, match=message):
        open_source({"kind": "shifted", "source": INNER} | spec)
