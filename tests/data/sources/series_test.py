"""Whole series at their valid steps, and at moments evenly spaced."""

import numpy as np
import pytest

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def spec(tmp_path):
    """Two records of 6 steps, the last two of the second being padding."""
    steps = np.arange(6, dtype=np.float32)
    x = np.stack([np.stack([steps, steps**2], 1)] * 2)
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2], np.uint8)
    lips = np.full((2, 6, 4, 5), 51, np.uint8)
    np.savez(
        tmp_path / "x.npz",
        x=x,
        mask=mask,
        y=np.stack([steps.astype("u1")] * 2),
        lips=lips,
    )
    return {"kind": "series", "source": f"npz:{tmp_path}/x.npz", "series": ("x", "y")}


def test_padding_is_taken_out(spec):
    source = open_source(spec | {"mask": "mask"})
    assert [source[i]["x"].shape for i in range(2)] == [(6, 2), (4, 2)]
    np.testing.assert_array_equal(source[1]["y"], [[0], [1], [2], [3]])
    assert source[0]["key"] == "0" and len(source) == 2


def test_moments_and_means(spec):
    record = open_source(spec | {"steps": 3, "center": True})[0]
    np.testing.assert_allclose(record["y"][:, 0], [-2.5, 0, 2.5])
    # 2.5 lies between the squares of 2 and of 3
    x = np.array([0, 6.5, 25])
    np.testing.assert_allclose(record["x"][:, 1], x - x.mean(), rtol=1e-6)
    lips = open_source(spec | {"series": ("lips",), "steps": 9})[0]["lips"]
    assert lips.shape == (9, 20)
    np.testing.assert_allclose(lips, 0.2)


def test_what_is_made_is_in_the_fingerprint(spec):
    made = ({}, {"mask": "mask"}, {"steps": 3}, {"center": True}, {"series": ("x",)})
    assert len({open_source(spec | more).fingerprint() for more in made}) == len(made)


def test_refusals(spec):
    with pytest.raises(UserError, match="series='x', steps=0: name the values"):
        open_source(spec | {"series": "x"})
    with pytest.raises(BrokenRecord, match="it has no 'z': it has key"):
        open_source(spec | {"series": ("z",)})[0]
    with pytest.raises(BrokenRecord, match=r"x has 6 steps, x is \(6, 2\)"):
        open_source(spec | {"mask": "x"})[0]
