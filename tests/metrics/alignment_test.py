"""Errors of paths: by hand, and against counting cells."""

import numpy as np
import pytest

from mmjax.metrics import alignment

DIAGONAL = np.stack([np.arange(5)] * 2, 1)
CORNER = np.array([(0, j) for j in range(5)] + [(i, 4) for i in range(1, 5)])


def test_by_hand():
    late = np.array([(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (4, 4)])
    assert alignment.frame_error(DIAGONAL, np.arange(5)) == 0
    assert alignment.frame_error(late, np.arange(5)) == pytest.approx(0.7)
    np.testing.assert_allclose(alignment.columns(late, 5), [0, 0, 1, 2, 3.5])
    gap = np.array([(0, 0), (2, 4)])
    np.testing.assert_allclose(alignment.columns(gap, 3), [0, 2, 4])


def test_area_of_half_the_grid():
    assert alignment.area(CORNER, DIAGONAL) == pytest.approx(0.5)
    assert alignment.area(CORNER, CORNER[:, ::-1]) == pytest.approx(1.0)
    assert alignment.area(CORNER, CORNER) == 0
    crossing = np.array([(0, 0), (0, 2), (4, 2), (4, 4)])  # two triangles of side 2
    assert alignment.area(crossing, DIAGONAL) == pytest.approx(4 / 16)
    with pytest.raises(ValueError, match="same ends"):
        alignment.area(DIAGONAL[:-1], DIAGONAL)


def test_path_error_is_symmetric_and_a_distance_of_points():
    assert alignment.path_error(DIAGONAL, DIAGONAL) == 0
    shifted = DIAGONAL + [0, 3]
    assert alignment.path_error(shifted, DIAGONAL) == pytest.approx(
        alignment.path_error(DIAGONAL, shifted)
    )
    assert alignment.path_error(DIAGONAL, shifted) == pytest.approx(
        (_brute(DIAGONAL, shifted) + _brute(shifted, DIAGONAL)) / 10
    )


def _brute(p, q):
    return sum(min(np.hypot(*(a - b)) for b in q) for a in p)
