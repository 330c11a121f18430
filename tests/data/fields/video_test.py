import numpy as np
import pytest

from mmjax.data import fields
from mmjax.data.fields.base import View
from mmjax.errors import UserError

PHOTO = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def clip(count):
    """Frame k is of the grey level k."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 9, 9, 3))


def build(**options):
    options = {"size": 8, "train_scale": (1.0, 1.0), **options}
    return fields.build({"video": {"kind": "video", **options}})


def positions(chosen, count, rng=None):
    view = View(train=rng is not None)
    row = fields.row(chosen, {"video": clip(count)}, rng, view)["video"]
    return row["video"][row["video_mask"], 0, 0, 0].tolist()


def test_all_frames_have_one_crop():
    chosen = build(length=5, train_scale=(0.2, 0.6), flip=True)
    frames = {"video": np.stack([PHOTO] * 5)}
    rng = np.random.default_rng(0)
    views = []
    for _ in range(8):
        view = View(train=True)
        out = fields.row(chosen, frames, rng, view)["video"]["video"]
        assert (out == out[0]).all()
        views.append(out[0].tobytes())
        assert view.crops["video"].size == (8, 8)
    assert len(set(views)) == 8


def test_windows_and_strides():
    assert positions(build(length=3), 7) == [2, 3, 4]
    assert positions(build(length=3, stride=2), 7) == [1, 3, 5]
    assert positions(build(length=3, stride=4), 7) == [0, 4]
    assert positions(build(length=4), 2) == [0, 1]
    rng = np.random.default_rng(0)
    drawn = {tuple(positions(build(length=3), 7, rng)) for _ in range(60)}
    assert drawn == {(k, k + 1, k + 2) for k in range(5)}


def test_evenly_spaced():
    chosen = build(length=3, pick="even")
    assert positions(chosen, 9) == [1, 4, 7]
    assert positions(chosen, 2) == [0, 1]
    rng = np.random.default_rng(0)
    drawn = np.array([positions(chosen, 9, rng) for _ in range(99)])
    for k in range(3):  # each from its own third
        assert set(drawn[:, k]) == set(range(3 * k, 3 * k + 3))


def test_a_clip_is_cropped_as_an_image_is():
    chosen = build(length=2)
    image = fields.build({"image": {"kind": "image", "size": 8}})
    frames = fields.encode(chosen, "video", [np.stack([PHOTO, PHOTO[::-1]])])
    wanted = fields.encode(image, "image", [PHOTO, PHOTO[::-1]])["image"]
    np.testing.assert_array_equal(frames["video"][0], wanted)


@pytest.mark.parametrize(
    "wrong", [PHOTO, clip(0), clip(3).astype(float), clip(3)[..., :1]]
)
def test_records_that_do_not_fit(wrong):
    with pytest.raises(UserError, match=r"expected uint8 \(N, H, W, 3\), RGB, got"):
        fields.encode(build(length=2), "video", [wrong])


def test_options():
    with pytest.raises(UserError, match="stride is 0: use 1 or more"):
        build(length=2, stride=0)
    with pytest.raises(UserError, match="is not one of 'window', 'even'"):
        build(length=2, pick="all")
