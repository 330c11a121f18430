"""CCA against eigenvalues of its definition, identical views, and numpy kernels."""

import numpy as np
import pytest
from scipy import linalg

from mmjax.errors import UserError
from mmjax.metrics import cca


def rows(seed, n, *widths, shared=3, noise=0.5):
    """Views of `shared` common causes."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, shared))
    return [
        cause @ rng.normal(size=(shared, d)) + noise * rng.normal(size=(n, d))
        for d in widths
    ]


def test_two_views_are_the_eigenvalues_of_the_definition():
    a, b = rows(0, 200, 6, 4)
    reg = (0.1, 0.02)
    joint = np.cov(np.hstack([a, b]).T)
    aa, bb = joint[:6, :6] + 0.1 * np.eye(6), joint[6:, 6:] + 0.02 * np.eye(4)
    ab = joint[:6, 6:]
    squares = linalg.eigvals(np.linalg.solve(aa, ab) @ np.linalg.solve(bb, ab.T))
    want = np.sqrt(np.sort(squares.real)[::-1][:4])
    fitted = cca.fit((a, b), reg=reg)
    np.testing.assert_allclose(fitted.correlations, want, atol=1e-12)
    codes = fitted.codes((a, b))
    np.testing.assert_allclose(
        codes[0].T @ codes[1] / 199, np.diag(fitted.correlations), atol=1e-12
    )


def test_without_reg_training_correlations_are_pearsons():
    a, b = rows(1, 60, 5, 3)
    fitted = cca.fit((a, b), 2, reg=0)
    codes = fitted.codes((a, b))
    pearson = [np.corrcoef(codes[0][:, i], codes[1][:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(fitted.correlations, pearson, atol=1e-12)
    np.testing.assert_allclose(fitted.held_out((a, b)), pearson, atol=1e-12)


def test_identical_views_have_the_width_as_total():
    (a,) = rows(2, 50, 4)
    for views in ((a, a @ np.diag([1, 2, 3, 4.0])), (a, 2 * a, a - 5)):
        assert cca.fit(views, reg=0).correlations.sum() == pytest.approx(4)


def test_three_views_are_maxvar_by_its_projections():
    views = rows(3, 80, 5, 4, 3)
    total = np.zeros((80, 80))
    for x in views:
        x = x - x.mean(0)
        total += x @ np.linalg.pinv(x)
    want = (np.linalg.eigvalsh(total)[::-1][:3] - 1) / 2
    fitted = cca.fit(views, reg=0)
    np.testing.assert_allclose(fitted.correlations, want, atol=1e-10)
    # codes of all views lean the same way as MAXVAR's common variable
    assert (fitted.held_out(views) > 0.5).all()


def test_held_out_rows_have_no_part_in_the_fit():
    a, b = rows(4, 430, 12, 12, shared=1)
    fitted = cca.fit((a[:30], b[:30]), reg=1e-6)
    assert fitted.correlations.sum() > 6  # 30 rows of 12 columns fit anything
    assert fitted.held_out((a[30:], b[30:])).sum() < 2


def test_null_is_near_zero_where_pairs_are_far_above():
    a, b = rows(5, 600, 6, 6)
    train, test = (a[:300], b[:300]), (a[300:], b[300:])
    got = cca.fit(train, 3).held_out(test).sum()
    null = cca.null(train, test, 3, repeats=20)
    assert null.shape == (20,) and abs(null.mean()) < 0.3
    assert got > null.max() + 1
    np.testing.assert_array_equal(null, cca.null(train, test, 3, repeats=20))


def test_features_approach_their_kernel():
    x = np.random.default_rng(6).normal(size=(300, 3))
    want = cca.rbf(x, x, 2.0)
    np.testing.assert_allclose(want[0, 1], np.exp(-np.sum((x[0] - x[1]) ** 2) / 8))
    fourier = cca.fourier(x, width=20000, scale=2.0, seed=0)(x)
    np.testing.assert_allclose(fourier @ fourier.T, want, atol=0.05)
    features = cca.nystroem(x, width=300, scale=2.0, seed=0)(x)
    np.testing.assert_allclose(features @ features.T, want, atol=1e-6)
    few = cca.nystroem(x, width=60, scale=2.0, seed=0)(x)
    assert np.abs(few @ few.T - want).mean() < 0.01


def test_kernel_cca_finds_what_linear_cca_does_not():
    rng = np.random.default_rng(7)
    angle = rng.uniform(-1, 1, size=(800, 1))
    a = np.hstack([angle, rng.normal(size=(800, 1))])
    b = np.hstack([angle**2, rng.normal(size=(800, 1))])
    half = slice(400), slice(400, 800)
    linear = cca.fit((a[half[0]], b[half[0]]), 1).held_out((a[half[1]], b[half[1]]))
    maps = [cca.fourier(x, width=100, scale=1.0, seed=i) for i, x in enumerate((a, b))]
    train, test = ([m(x[h]) for m, x in zip(maps, (a, b), strict=True)] for h in half)
    kernel = cca.fit(train, 1, reg=1e-3).held_out(test)
    assert abs(linear.sum()) < 0.2 and kernel.sum() > 0.9


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        (lambda a, b: (a, b[:-1]), {}, r"\[20, 19\] rows.*as many"),
        (lambda a, b: (a, b[:, 0]), {}, "shapes"),
        (lambda a, b: (a * np.where(a > 2, np.nan, 1), b), {}, "view 0: .*not finite"),
        (lambda a, b: (a[:3], b[:3]), {"reg": 0}, "3 rows of 4 columns: .*more than 4"),
        (lambda a, b: (a * [1, 0, 1, 1], b), {"reg": 0}, "view 0: 1 of 4 .*column 1"),
        (lambda a, b: (a[:, [0, 1, 1]], b), {"reg": 0}, "dependent; use a larger reg"),
        (lambda a, b: (a, b), {"components": 5}, "5 components .*use 1 to 3"),
        (lambda a, b: (a, b), {"reg": -1}, "reg is -1"),
    ],
)
def test_bad_input_says_what_to_change(change, how, message):
    with pytest.raises(UserError, match=message):
        cca.fit(change(*rows(8, 20, 4, 3)), **how)


def test_constant_columns_are_fine_with_a_reg():
    a, b = rows(9, 40, 4, 3)
    a[:, 1] = 7.0
    assert np.isfinite(cca.fit((a, b), reg=1e-8).held_out((a, b))).all()
    assert cca.correlations((a[:, 1:2], b[:, 1:2])) == 0


def test_more_nystroem_features_than_rows():
    with pytest.raises(UserError, match="30 Nystroem features of 20 rows"):
        cca.nystroem(np.zeros((20, 2)), width=30, scale=1.0, seed=0)
