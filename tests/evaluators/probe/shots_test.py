"""Few examples a class: the draw and the interpolation."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators.probe import shots

LABELS = np.repeat([0, 1, 2], [5, 3, 9])


def test_draws_of_one_seed_are_nested():
    few, more = (shots.draw(LABELS, k, seed=4, names="abc") for k in (1, 3))
    assert set(few) < set(more)
    np.testing.assert_array_equal(np.bincount(LABELS[more]), [3, 3, 3])
    np.testing.assert_array_equal(more, shots.draw(LABELS, 3, seed=4, names="abc"))
    assert any(
        (shots.draw(LABELS, 3, seed=s, names="abc") != more).any() for s in range(5)
    )


def test_a_class_with_too_few():
    words = r"class 1 \('b'\) has 3 images, fewer than 4 shots: ask for 3"
    with pytest.raises(UserError, match=words):
        shots.draw(LABELS, 4, seed=0, names="abc")
    with pytest.raises(UserError, match="class 3 .* has 0 images, fewer than 1"):
        shots.draw(LABELS, 1, seed=0, names="abcd")


@pytest.mark.parametrize(
    "goal, expected",
    [
        (0.5, (4.0, 0)),
        (0.4, (2 * 2**0.5, 0)),  # halfway between 0.3 at 2 and 0.5 at 4, in the log
        (0.05, (1.0, -1)),
        (0.1, (1.0, 0)),
        (0.9, (50.0, 0)),
        (0.95, (50.0, 1)),
    ],
)
def test_worth(goal, expected):
    found = shots.worth([1, 2, 4, 8, 50], [0.1, 0.3, 0.5, 0.45, 0.9], goal)
    assert found == (pytest.approx(expected[0]), expected[1])
