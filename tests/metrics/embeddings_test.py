"""Sums of unit vectors, and the nearest rows, against plain numpy."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import embeddings


def test_the_lectures_query_by_hand():
    image, red, blue = [3.0, 0, 4.0], [0, 2.0, 0], [0, 0, 0.5]
    got = embeddings.combine([(1, image), (-1, red), (1, blue)])
    want = np.asarray([0.6, -1, 1.8])
    np.testing.assert_allclose(got, want / np.linalg.norm(want), atol=1e-6)
    many = embeddings.combine([(1, np.stack([image, red])), (0.5, blue)])
    second = np.asarray([0, 1, 0.5])
    np.testing.assert_allclose(many[1], second / np.linalg.norm(second), atol=1e-6)


def test_a_difference_of_texts_cancels_what_they_share():
    rng = np.random.default_rng(0)
    image, gap = rng.standard_normal((2, 16))
    a, b = rng.standard_normal((2, 16))
    # texts: something of their own, and a part in common at right angles to it
    gap -= a * (gap @ a) / (a @ a)
    b -= a * (a @ b) / (a @ a)
    gap -= b * (gap @ b) / (b @ b)
    a, b, gap = embeddings.unit(np.stack([a, b, gap]))
    moved = embeddings.combine([(1, image), (-1, a + gap), (1, b + gap)])
    pure = embeddings.combine([(1, image), (-(2**-0.5), a), (2**-0.5, b)])
    np.testing.assert_allclose(moved, pure, atol=1e-6)


@pytest.mark.parametrize(
    "terms", [[], [(1, [1.0, 0]), (-1, [2.0, 0])], [(1, [np.nan, 1])], [(1, [0, 0])]]
)
def test_sums_without_direction(terms):
    with pytest.raises(UserError, match="nothing to add up|no direction"):
        embeddings.combine(terms)


def test_nearest_without_oneself(monkeypatch):
    rng = np.random.default_rng(1)
    gallery = rng.integers(-2, 3, (60, 4)).astype(np.float32)
    queries = gallery[:23]
    monkeypatch.setattr(embeddings, "_CELLS", 300)  # five queries at a time
    got = embeddings.nearest(queries, gallery, 7, skip_q=np.arange(23))
    for q, row in enumerate(got):
        order = sorted(
            set(range(60)) - {q}, key=lambda n: (-gallery[n] @ queries[q], n)
        )
        assert row.tolist() == order[:7]
    with pytest.raises(UserError, match="60 nearest of 60 images: give 61 or more"):
        embeddings.nearest(queries, gallery, 60, skip_q=np.arange(23))
