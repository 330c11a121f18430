"""Sheets of images in rows."""

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.report import image_grid

PIXELS = np.full((16, 16, 3), 200, np.uint8)


def test_images_of_any_kind_look_the_same():
    rows = [[PIXELS], [PIXELS / 255], [Image.fromarray(PIXELS)], [PIXELS[..., 0]]]
    sheets = [np.asarray(image_grid.sheet([row])) for row in rows]
    assert all((one == sheets[0]).all() for one in sheets)
    assert (sheets[0] == 200).sum() == 64 * 64 * 3


def test_a_file_is_the_sheet(tmp_path):
    path = image_grid.draw(tmp_path / "new" / "a.png", [[PIXELS, PIXELS]], ["two"])
    shown = image_grid.sheet([[PIXELS, PIXELS]], ["two"])
    assert (np.asarray(Image.open(path)) == np.asarray(shown)).all()


@pytest.mark.parametrize(
    "rows, captions, said",
    [
        ([], [], "one or more in every row"),
        ([[PIXELS], []], [], "one or more in every row"),
        ([PIXELS], [], "a sheet takes rows, lists of images"),
        (PIXELS, [], "a sheet takes rows, lists of images"),
        ([[PIXELS, PIXELS[:8]]], [], "of one size, and has"),
        ([[PIXELS]], ["a", "b"], "2 captions for 1 rows"),
        ([[PIXELS]], "a", "captions are 'a': give a list"),
    ],
)
def test_what_is_no_sheet(rows, captions, said):
    with pytest.raises(UserError, match=said):
        image_grid.sheet(rows, captions)
