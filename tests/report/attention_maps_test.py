"""Maps of where a captioner looked."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.report import attention_maps


def test_a_class_token_lies_nowhere():
    weight = np.arange(10.0).reshape(2, 5)
    maps = attention_maps.grid(weight)
    np.testing.assert_array_equal(maps[0], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(attention_maps.grid(weight[:, 1:]), maps)


def test_cells_that_are_no_square():
    for cells in (1, 3, 6):
        with pytest.raises(UserError, match=f"looks at {cells} cells, which are no sq"):
            attention_maps.grid(np.ones((2, cells)))


def test_a_panel_a_word_and_the_image():
    image = np.full((8, 8, 3), 90, np.uint8)
    drawn = attention_maps.draw(image, ["a", "dog"], np.eye(4)[:3])
    titles = [axes.get_title() for axes in drawn.axes[:3]]
    assert titles == ["", "a", "dog"]
    light = drawn.axes[1].images[1].get_array()
    assert light.argmax() == 0 and drawn.axes[2].images[1].get_array()[0].argmax() == 7
    assert attention_maps.draw(image, [], np.eye(4)).axes
