"""Re-ranking against loops: cosines, nested pools, stable ties, histograms."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.sampling import rerank

POOLS = (1, 8, 64, 512)


@pytest.fixture
def scores_pk():
    return np.random.default_rng(0).normal(size=(5, 512)).astype(np.float32)


def test_scores_are_cosines_with_the_own_caption():
    rng = np.random.default_rng(1)
    image, text = rng.normal(size=(3, 4, 6)), 5 * rng.normal(size=(3, 6))
    got = rerank.clip_scores(image, text)
    for p in range(3):
        for k in range(4):
            a, b = image[p, k], text[p]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            assert got[p, k] == pytest.approx(cosine, abs=1e-6)
    image[0, 1], image[1, 2, 0] = 0, np.nan
    got = rerank.clip_scores(image, text)
    assert got[0, 1] == got[1, 2] == -np.inf and np.isfinite(got).sum() == 10
    for wrong in ((3, 7), (2, 6), (6,)):
        with pytest.raises(UserError, match=r"\(3, 4, 6\)"):
            rerank.clip_scores(image, np.ones(wrong))


def test_pools_are_the_first_candidates(scores_pk):
    picks_ps = rerank.best_of(scores_pk, POOLS)
    for p in range(5):
        for s, pool in enumerate(POOLS):
            assert picks_ps[p, s] == max(
                range(pool), key=lambda k, p=p: scores_pk[p, k]
            )
    assert (picks_ps[:, 0] == 0).all()
    best_ps = rerank.chosen(scores_pk, picks_ps)
    assert (np.diff(best_ps, axis=1) >= 0).all()  # a larger pool is never worse
    # the same whatever else was drawn
    np.testing.assert_array_equal(
        picks_ps[:, :3], rerank.best_of(scores_pk[:, :64], POOLS[:3])
    )


def test_top_sorts_and_ties_are_stable():
    scores = np.array([[0.1, 0.5, 0.5, 0.9, 0.5], [2.0, 2.0, 2.0, 2.0, 2.0]])
    assert rerank.top(scores, 4).tolist() == [[3, 1, 2, 4], [0, 1, 2, 3]]
    assert rerank.top(scores, 2, pool=3).tolist() == [[1, 2], [0, 1]]
    scores[0, 3], scores[1, 0] = np.nan, -np.inf
    assert rerank.top(scores, 4).tolist() == [[1, 2, 4, 0], [1, 2, 3, 4]]


def test_chosen_takes_any_values():
    values = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    got = rerank.chosen(values, np.array([[2, 0], [1, 1]]))
    assert got.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_random_scores_grow_with_the_pool_as_order_statistics_do():
    scores = np.random.default_rng(0).uniform(size=(4000, 64))
    means = rerank.chosen(scores, rerank.best_of(scores, (1, 3, 9, 64))).mean(0)
    np.testing.assert_allclose(means, [k / (k + 1) for k in (1, 3, 9, 64)], atol=0.015)


@pytest.mark.parametrize(
    ("n", "pool"), [(0, None), (513, None), (3, 2), (1, 513), (1, 0)]
)
def test_too_few_candidates(scores_pk, n, pool):
    with pytest.raises(UserError, match="of 512 candidates: draw more"):
        rerank.top(scores_pk, n, pool=pool)
    with pytest.raises(UserError, match=r"scores are \(5,\)"):
        rerank.top(scores_pk[:, 0], 1)
