"""Losses of a coordinated space: formulas, and rows that lack a view have no part."""

import jax
import numpy as np
import pytest

from mmjax.losses import contrastive, coordinated


def rows(n=6, d=4, seed=0):
    rng = np.random.default_rng(seed)
    pair = rng.normal(size=(2, n, d)).astype(np.float32)
    return pair / np.linalg.norm(pair, axis=-1, keepdims=True)


ALL = np.ones(6, bool)


def test_whole_rows_have_clips_loss():
    a, b = rows()
    got = coordinated.info_nce(a, b, ALL, 10.0)
    assert float(got) == pytest.approx(
        float(contrastive.info_nce(a, b, 10.0)), abs=1e-5
    )


def test_the_hinge_rank_loss_is_devises():
    a, b = rows()
    b[3] = b[1]  # the same word twice: no wrong label
    scores, want = a @ b.T, 0.0
    for i in range(6):
        for j in range(6):
            if i != j and {i, j} != {1, 3}:
                want += max(0.0, 0.1 - scores[i, i] + scores[i, j]) / 6
    got = coordinated.hinge_rank(a, b, ALL, 0.1)
    assert float(got) == pytest.approx(want, abs=1e-5)
    b[4] = 0.0  # words that none knows are no wrong label of themselves
    alone = coordinated.hinge_rank(np.zeros_like(a), b, ALL, 0.1)
    assert float(alone) == pytest.approx(0.1 * (6 * 5 - 2) / 6, abs=1e-5)
    b = rows()[1]
    assert coordinated.hinge_rank(b, b, ALL, 1e-6) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b, p: coordinated.info_nce(a, b, p, 10.0),
        lambda a, b, p: coordinated.hinge_rank(a, b, p, 0.1),
    ],
)
def test_absent_rows_change_nothing(loss):
    a, b = rows()
    some = np.array([1, 1, 0, 1, 0, 1], bool)
    want = loss(a[some], b[some], some[some])
    b[~some] = 0.0  # as blank rows are
    assert float(loss(a, b, some)) == pytest.approx(float(want), abs=1e-5)
    grads = jax.grad(lambda a, b: loss(a, b, some), (0, 1))(a, b)
    assert all(np.isfinite(g).all() and not g[~some].any() for g in grads)
    assert float(loss(a, b, ~ALL)) == 0.0
