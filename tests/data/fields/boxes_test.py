import numpy as np
import pytest
from record_source import Records

from mmjax.data import fields
from mmjax.data.fields.base import View
from mmjax.errors import UserError

IMG = np.zeros((60, 90, 3), np.uint8)
IMG[12:40, 30:66] = 255
RECORD = {
    "image": IMG,
    "boxes": np.float32([[0, 0, 4, 4], [30, 12, 36, 28], [85, 0, 5, 60]]),
    "names": np.array([7, 8, 9]),
    "features": np.arange(6.0).reshape(3, 2),
    "key": "k",
}


def build(image=None, **options):
    boxes = {"kind": "boxes", "count": 4, "labels": "names", **options}
    # a name before `image` in the alphabet: the crop comes first all the same
    return fields.build({"b": boxes, "image": {"kind": "image", **(image or {})}})


def one(chosen, record, view):
    rng = np.random.default_rng(0) if view.train else None
    return fields.collate(chosen, [fields.row(chosen, record, rng, view)])


def test_boxes_follow_the_crop_of_their_image():
    chosen = build({"size": 32, "train_scale": (0.4, 0.9), "flip": True})
    rng = np.random.default_rng(0)
    for train in [False] + 20 * [True]:
        row = fields.row(chosen, RECORD, rng, View(train=train))
        batch = fields.collate(chosen, [row])
        rows, columns = np.nonzero(batch["image"][0, ..., 0] > 127)
        ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        x, y, w, h = batch["b"][0, 1]
        np.testing.assert_allclose((x, y, x + w, y + h), ends, atol=1.01)
        assert batch["b_mask"][0, 1]


def test_boxes_outside_are_left_out_with_all_that_belongs_to_them():
    chosen = build({"size": 60}, vectors="features", width=2)
    batch = one(chosen, RECORD, View(train=False))  # columns 15 to 75 of 90
    assert batch["b_mask"].tolist() == [[False, True, False, False]]
    assert batch["b"][0, 1].tolist() == [15, 12, 36, 28]
    assert batch["b_labels"].tolist() == [[-1, 8, -1, -1]]
    assert batch["b_vectors"][0].tolist() == [[0, 0], [2, 3], [0, 0], [0, 0]]


def test_without_an_image_boxes_are_pixels_of_the_original():
    chosen = fields.build({"b": {"kind": "boxes", "count": 4, "image": ""}})
    batch = one(chosen, RECORD, View(train=True))
    np.testing.assert_array_equal(batch["b"][0, :3], RECORD["boxes"])
    batch = fields.encode(chosen, "b", [RECORD["boxes"], []])
    assert batch["b_mask"].sum(1).tolist() == [3, 0]


def test_more_boxes_than_slots():
    view = View(train=False)
    with pytest.raises(
        fields.BrokenRecord, match="3 boxes, and count 2: set count to 3"
    ):
        one(build({"size": 60}, count=2), RECORD, view)
    boxes = {"kind": "boxes", "count": 2, "cut": True, "image": "", "labels": "names"}
    batch = one(fields.build({"b": boxes | {"of": "boxes"}}), RECORD, view)
    np.testing.assert_array_equal(batch["b"][0], RECORD["boxes"][1:])  # the largest
    assert batch["b_labels"].tolist() == [[8, 9]]
    batch = one(build({"size": 60}, count=1, cut=True), RECORD, view)
    assert batch["b_labels"].tolist() == [[8]]  # of the view: the third lies outside


def test_boxes_of_a_blank_image_are_blank():
    chosen = build({"optional": True})
    record = {key: RECORD[key] for key in RECORD if key != "image"}
    batch = one(chosen, record, View(train=False))
    assert not batch["b_mask"].any() and (batch["b_labels"] == -1).all()


def test_boxes_need_the_image_they_follow():
    chosen = build()
    source = Records([RECORD])
    fields.check(chosen, chosen, source)
    alone = {"b": chosen["b"]}
    with pytest.raises(
        UserError, match="no view of 'image' is taken.* set image to ''"
    ):
        fields.check(alone, chosen, source)
    with pytest.raises(UserError, match="no field of kind image"):
        fields.check(alone, alone, source)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            {"boxes": np.ones((2, 5))},
            r"'boxes' as numbers \(n, 4\), got float64 \(2, 5\)",
        ),
        ({"boxes": [["a"] * 4] * 3}, r"'boxes' as numbers \(n, 4\), got <U1"),
        ({"names": np.array([1, 2])}, "3 boxes, and 2 values of b_labels"),
        ({"names": np.ones(3)}, r"'names' as integers \(n,\), got float64"),
        (
            {"features": np.ones((3, 3))},
            r"'features' as numbers \(n, 2\), got float64 \(3, 3\)",
        ),
    ],
)
def test_records_that_do_not_fit(wrong, message):
    chosen = build(vectors="features", width=2)
    with pytest.raises(fields.BrokenRecord, match=message):
        one(chosen, RECORD | wrong, View(train=False))
    record = {key: RECORD[key] for key in RECORD if key != "names"}
    with pytest.raises(fields.BrokenRecord, match="no array 'names'"):
        one(chosen, record, View(train=False))


def test_options():
    with pytest.raises(UserError, match="set both or neither"):
        build(vectors="features")
    with pytest.raises(UserError, match="count is 0"):
        build(count=0)
