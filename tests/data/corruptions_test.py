"""Shifts do what their names say, more of it at higher severities, always the same."""

import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data import corruptions
from mmjax.errors import UserError


@pytest.fixture
def picture():
    """A smooth ramp with a sharp square, 56 x 48."""
    y, x = np.mgrid[:56, :48]
    image = np.stack([4 * y, 5 * x, 2 * (x + y)], -1).astype(np.uint8)
    image[20:36, 16:32] = (250, 10, 120)
    return image


@pytest.mark.parametrize("name", corruptions.SHIFTS)
def test_each_changes_more_at_higher_severity_and_never_its_input(name, picture):
    before, far = picture.copy(), []
    for severity in corruptions.SEVERITIES:
        got = corruptions.apply(name, picture, severity, 7)
        assert got.shape == picture.shape and got.dtype == np.uint8
        again = corruptions.apply(name, picture, severity, 7)
        np.testing.assert_array_equal(got, again)
        far.append(np.square(got.astype(float) - picture).mean())
    np.testing.assert_array_equal(picture, before)
    assert (np.diff(far) > 0).all(), far


def test_noise_has_the_deviation_of_imagenet_c():
    middle = np.full((200, 200, 3), 128, np.uint8)
    got = corruptions.apply("noise", middle, 1, 0).astype(float)
    assert got.std() == pytest.approx(0.08 * 255, rel=0.01)
    assert np.any(got != corruptions.apply("noise", middle, 1, 1))


def test_blur_is_a_gaussian_of_its_share_of_the_side():
    point = np.zeros((112, 112, 3), np.uint8)
    point[56, 56] = 255
    got = corruptions.apply("blur", point, 5, 0)[..., 0].astype(float)
    sigma = 6 * 112 / 224
    y, x = np.mgrid[-56:56, -56:56]
    want = 255 * np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    np.testing.assert_allclose(got, want, atol=0.6)  # half a grey level, and cut tails


def test_jpeg_is_pillows(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=18)
    want = np.asarray(Image.open(file))
    np.testing.assert_array_equal(corruptions.apply("jpeg", picture, 2, 0), want)


def test_styles_at_their_end(picture):
    gray = corruptions.apply("gray", picture, 5, 0)
    assert (gray == gray[..., :1]).all()
    want = np.asarray(Image.fromarray(picture).convert("L"), float)
    np.testing.assert_allclose(gray[..., 0], want, atol=1)
    assert set(np.unique(corruptions.apply("posterise", picture, 5, 0))) == {64, 192}
    square = np.full((40, 40, 3), 200, np.uint8)
    square[10:30, 10:30] = 20
    sketch = corruptions.apply("sketch", square, 5, 0)
    assert sketch[20, 10].max() < 130 and sketch[20, 20].min() == 255  # edge, inside


def test_refuses_what_it_does_not_know(picture):
    with pytest.raises(UserError, match="no shift is called 'nois'.*'noise'"):
        corruptions.apply("nois", picture, 1, 0)
    with pytest.raises(UserError, match=r"severity 6: use 1 \(weak\) to 5"):
        corruptions.apply("noise", picture, 6, 0)
