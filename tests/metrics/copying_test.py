"""Nearest neighbours against a loop, and a generator that copies."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import copying


def by_hand(queries, gallery):
    found = []
    for query in queries.astype(np.float64):
        distances = [np.sqrt(np.mean((query - g) ** 2)) for g in gallery]
        found.append((min(distances), int(np.argmin(distances))))
    return map(np.array, zip(*found, strict=True))


@pytest.mark.parametrize("cells", [1, 200, 1 << 22])
def test_nearest_matches_a_loop(monkeypatch, cells):
    monkeypatch.setattr(copying, "_CELLS", cells)
    rng = np.random.default_rng(0)
    queries = rng.uniform(size=(23, 12)).astype(np.float32)
    gallery = rng.uniform(size=(31, 12)).astype(np.float32)
    distance, index = copying.nearest(queries, gallery)
    wanted_distance, wanted_index = by_hand(queries, gallery)
    np.testing.assert_array_equal(index, wanted_index)
    np.testing.assert_allclose(distance, wanted_distance, atol=1e-6)


def test_a_copy_is_at_zero_and_equals_fall_to_the_first():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    gallery = copying.pixels(np.concatenate([images, images]))
    distance, index = copying.nearest(copying.pixels(images), gallery)
    assert (distance == 0).all() and index.tolist() == list(range(40))
    assert gallery.shape == (80, 192) and gallery.max() <= 1


def test_refuses_unlike_rows():
    for query, gallery in (((3, 4), (3, 5)), ((3, 4), (0, 4)), ((4,), (3, 4))):
        with pytest.raises(UserError, match="two matrices of one width"):
            copying.nearest(np.ones(query), np.ones(gallery))


def test_the_limit_is_what_few_held_out_pictures_fall_below():
    distances = np.random.default_rng(0).uniform(size=1000)
    share = np.mean(distances < copying.near_limit(distances))
    assert share == pytest.approx(copying.NEAR, abs=0.002)
