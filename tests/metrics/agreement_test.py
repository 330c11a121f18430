"""Krippendorff's alpha against his own worked examples, and by its properties."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import agreement

_ = -1


def counts(ratings, categories):
    """(u, c) from a row an observer; -1 is missing."""
    ratings = np.asarray(ratings)
    return np.stack([(ratings == c).sum(0) for c in categories], axis=1)


def test_the_worked_examples():
    """Krippendorff 2011, sections A (0.095) and C (0.743)."""
    binary = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert agreement.krippendorff(counts(binary, (0, 1))) == pytest.approx(
        0.095, abs=5e-4
    )
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    alpha = agreement.krippendorff(counts(four, range(1, 6)))
    assert alpha == pytest.approx(0.743, abs=5e-4)


def test_its_ends_and_weights():
    rng = np.random.default_rng(0)
    chance = agreement.krippendorff(rng.multinomial(5, [0.5, 0.5], 20_000))
    assert abs(chance) < 0.01
    assert agreement.krippendorff([[5, 0], [0, 5]]) == 1
    assert agreement.krippendorff([[1, 1], [1, 1]]) < 0
    assert np.isnan(agreement.krippendorff([[5, 0], [3, 0]]))  # nothing varies
    assert np.isnan(agreement.krippendorff([[1, 0], [0, 1]]))  # no two of a unit
    some = rng.integers(0, 4, (9, 3))
    weights = rng.integers(0, 4, 9)
    again = agreement.krippendorff(np.repeat(some, weights, axis=0))
    assert agreement.krippendorff(some, weights) == pytest.approx(again)
    with pytest.raises(UserError, match="a row of counts a unit"):
        agreement.krippendorff([1, 2])


def test_raw_agreement():
    assert agreement.raw([[5, 0], [0, 5]]) == 1
    assert agreement.raw([[3, 2]]) == pytest.approx((3 * 2 + 2 * 1) / 20)
    assert np.isnan(agreement.raw([[1, 0]]))
