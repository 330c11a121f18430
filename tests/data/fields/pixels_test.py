"""Kind pixels: halves of images, alone and as whole columns; numbers that are NaN."""

import numpy as np
import pytest
from record_source import Columns, of

from mmjax.data import fields
from mmjax.data.fields import base
from mmjax.data.sources import open_source
from mmjax.errors import UserError

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    ("part", "cut"),
    [
        ("whole", np.s_[:]),
        ("left", np.s_[:, :2]),
        ("right", np.s_[:, 3:]),
        ("top", np.s_[:2]),
        ("bottom", np.s_[2:]),
    ],
)
def test_halves_are_rows_of_grey_pixels(part, cut):
    built = fields.build({"a": {"kind": "pixels", "part": part}})
    want = IMAGE.mean(-1)[cut].ravel() / 255
    got = fields.encode(built, "a", [IMAGE])["a"]
    np.testing.assert_allclose(got, want[None], rtol=1e-6)
    assert got.dtype == np.float32
    grey = IMAGE[..., 0]
    alone = fields.encode(built, "a", [grey])["a"]
    whole = built["a"].column("a", {"image": grey[None]}, slice(None))
    np.testing.assert_array_equal(alone, whole)
    np.testing.assert_array_equal(alone[0], np.float32(grey[cut].ravel()) / 255)


def test_width_is_learned_or_checked():
    source = open_source("shapes:train?size=16&count=4")
    built = fields.build({"a": {"kind": "pixels", "part": "left"}})
    opened = fields.open_fields(built, lambda: source, {})
    assert fields.shapes(opened) == {"a": ((128,), "float32")}
    wrong = fields.build({"a": {"kind": "pixels", "width": 100}})
    with pytest.raises(UserError, match="expected 100 numbers, got 20: set width"):
        fields.encode(wrong, "a", [IMAGE])
    with pytest.raises(UserError, match=r"expected uint8 \(H, W\).*got float64"):
        fields.encode(built, "a", [IMAGE / 255])


def test_numbers_that_are_not_finite_are_said_before_training():
    rows = np.ones((9000, 2), np.float32)
    rows[8999, 1] = np.nan
    source = Columns(a=rows)
    chosen = fields.open_fields(
        fields.build({"a": {"kind": "vector"}}), lambda: source, {}
    )
    with pytest.raises(UserError, match="fields.a: record 8999 .*1 of 2 .*not finite"):
        fields.check(chosen, chosen, source)
    with pytest.raises(UserError, match="1 of 2 numbers that are not finite"):
        fields.encode(chosen, "a", [rows[8999]])
    broken = of("a", [[1.0, np.inf]])
    with pytest.raises(UserError, match="not finite"):
        fields.check(chosen, chosen, broken)
    assert base.place("a") == "config.data.fields.a"
