"""Closed-form hashing: optima, invariances, and the paper's similarity written out."""

import itertools

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import average_precision, cca, hashing


def two_views(n=400, seed=0, classes=4):
    rng = np.random.default_rng(seed)
    label_n = rng.integers(classes, size=n)
    centre = np.random.default_rng(9).normal(size=(classes, 6))[label_n]
    views = [
        (centre + 0.7 * rng.normal(size=centre.shape))
        @ np.random.default_rng(i).normal(size=(6, d))
        + 0.1 * rng.normal(size=(n, d))
        for i, d in enumerate((20, 17))
    ]
    return views, label_n


def loss_of(x_nk, rotation_kk):
    turned = x_nk @ rotation_kk
    return np.square(np.where(turned > 0, 1, -1) - turned).sum()


def test_itq_is_a_rotation_that_no_small_turn_betters():
    x_nk = np.random.default_rng(0).normal(size=(300, 4)) * [3, 2, 1, 0.5]
    rotation = hashing.itq(x_nk)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-10)
    best = loss_of(x_nk, rotation)
    assert best < loss_of(x_nk, np.eye(4))
    for i, j in itertools.combinations(range(4), 2):
        for angle in (-0.3, 0.3):
            turn = np.eye(4)
            turn[[i, i, j, j], [i, j, i, j]] = (
                *(np.cos(angle), -np.sin(angle)),
                *(np.sin(angle), np.cos(angle)),
            )
            assert loss_of(x_nk, rotation @ turn) >= best - 1e-9


def test_corners_of_a_turned_cube_are_found_again():
    rng = np.random.default_rng(1)
    corner = np.where(rng.normal(size=(500, 3)) > 0, 1.0, -1.0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    got = [loss_of(corner @ turn, hashing.itq(corner @ turn, seed=s)) for s in range(5)]
    assert min(got) == pytest.approx(0, abs=1e-9)


def test_codes_of_pairs_are_near_and_of_others_far():
    views, _ = two_views()
    held_out, _ = two_views(seed=1)
    bits = hashing.cca_itq(views, 16, reg=1e-3).bits(held_out)
    apart = hashing.hamming(*(hashing.packed(x) for x in bits))
    assert np.diagonal(apart).mean() < 0.6 * apart.mean()


def test_cca_itq_rotates_canonical_components():
    views, _ = two_views()
    hashed = hashing.cca_itq(views, 8)
    fitted = cca.fit(views, 8)
    for part, own in zip(hashed.weights, fitted.weights, strict=True):
        turn = np.linalg.lstsq(own * fitted.correlations, part, rcond=None)[0]
        np.testing.assert_allclose(turn.T @ turn, np.eye(8), atol=1e-8)


def test_scm_is_its_definition_with_similarities_written_out():
    views, label_n = two_views(n=60)
    label_nc = np.eye(4)[label_n]
    hashed = hashing.scm(views, 8, label_nc, reg=1e-2)
    a, b = (x - x.mean(0) for x in views)
    residue = 8 * (2 * label_nc @ label_nc.T - 1)
    squares = [x.T @ x / 59 + 1e-2 * np.eye(x.shape[1]) for x in (a, b)]
    for w, v in zip(hashed.weights[0].T, hashed.weights[1].T, strict=True):
        cross = a.T @ residue @ b
        value = np.linalg.svd(
            np.linalg.solve(np.linalg.cholesky(squares[0]), cross)
            @ np.linalg.inv(np.linalg.cholesky(squares[1])).T,
            compute_uv=False,
        )[0]
        scale = np.sqrt((w @ squares[0] @ w) * (v @ squares[1] @ v))
        assert w @ cross @ v / scale == pytest.approx(value, rel=1e-6)
        first, second = (np.where(x @ y > 0, 1, -1) for x, y in ((a, w), (b, v)))
        residue = residue - np.outer(first, second)


def test_semantic_codes_find_the_class_in_the_other_view():
    (a, b), label_n = two_views(n=600)
    fit, ask = slice(0, 400), slice(400, None)
    hashed = hashing.scm((a[fit], b[fit]), 16, np.eye(4)[label_n[fit]], reg=1e-2)
    first, second = (hashing.packed(x) for x in hashed.bits((a[ask], b[ask])))
    same = label_n[ask][:, None] == label_n[ask]
    lines = zip(hashing.hamming(first, second), same, strict=True)
    scores = [average_precision.average_precision(*x) for x in lines]
    assert np.mean(scores) > 0.6 > 2 * same.mean()


def test_hamming_counts_bits(monkeypatch):
    monkeypatch.setattr(hashing, "_CELLS", 50)  # in several parts
    rng = np.random.default_rng(0)
    a, b = (rng.random((n, 24)) > 0.5 for n in (7, 11))
    want = (a[:, None] != b).sum(-1)
    got = hashing.hamming(hashing.packed(a), hashing.packed(b))
    np.testing.assert_array_equal(got, want)
    assert hashing.packed(a).nbytes == 7 * 3


def test_principal_components_keep_neighbours():
    x = np.random.default_rng(0).normal(size=(200, 16)) * np.linspace(3, 0.1, 16)
    bits = hashing.pca_itq(x, 8).bits([x])[0]
    apart = hashing.hamming(*[hashing.packed(bits)] * 2)
    near = np.linalg.norm(x[:, None] - x, axis=-1)
    assert np.corrcoef(apart.ravel(), near.ravel())[0, 1] > 0.45


@pytest.mark.parametrize(
    ("bits", "width", "message"),
    [
        (12, 0, r"^12 hash bits: bits are a multiple of 8; use 8 or 16$"),
        (0, 0, "0 hash bits.*use 8"),
        (64, 20, "64 hash bits of rows with 20 columns.*no more than the 20.*use 16$"),
        (12, 20, "12 hash bits of rows with 20 columns.*use 8 or 16"),
        (8, 6, "8 hash bits of rows with 6 columns.*use wider"),
    ],
)
def test_bad_numbers_of_bits(bits, width, message):
    with pytest.raises(UserError, match=message):
        hashing.check_bits(bits, width)


def test_bits_above_the_width_end_before_the_fit():
    views, _ = two_views(n=30)
    with pytest.raises(UserError, match="24 hash bits of rows with 17 columns"):
        hashing.cca_itq(views, 24)
    hashing.scm(
        views, 24, np.eye(30), reg=0.1
    )  # a bit is no component: more than columns
