"""Tip-Adapter and LP++ on rows where texts and examples each know a part."""

import numpy as np
import pytest

from mmjax.evaluators import few_shot
from mmjax.evaluators.probe import heads

C, D = 4, 16


@pytest.fixture(scope="module")
def data():
    """Classes around directions, and texts that are some way off them."""
    rng = np.random.default_rng(0)

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    centre_cd = unit(rng.normal(size=(C, D)))
    text_cd = unit(centre_cd + 0.35 * rng.normal(size=(C, D)))

    def draw(each):
        label_n = np.arange(C * each) % C
        rows_nd = centre_cd[label_n] + 0.3 * rng.normal(size=(C * each, D))
        return unit(rows_nd), label_n

    return text_cd, draw(4), draw(20), draw(200)


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_a_few_examples_help_the_texts(name, data):
    text_cd, shots, val, (test_nd, label_n) = data
    head = heads.best(heads.HEADS[name](*shots, text_cd, 20.0), *val)
    zero = (test_nd @ text_cd.T).argmax(1)
    assert (head(test_nd).argmax(1) == label_n).mean() > (zero == label_n).mean() + 0.02


def test_tip_adapter_is_the_papers_formula(data):
    text_cd, (rows_sd, label_s), (val_md, _), _ = data
    head = heads.tip_adapter(rows_sd, label_s, text_cd, 20.0)[3]()
    alpha, beta = heads._ALPHAS[3], heads._BETAS[0]
    for f_d, ours_c in zip(val_md[:3], head(val_md[:3]), strict=True):
        want_c = [20.0 * f_d @ text_cd[c] for c in range(C)]
        for row_d, label in zip(rows_sd, label_s, strict=True):
            want_c[label] += alpha * np.exp(-beta * (1 - f_d @ row_d))
        np.testing.assert_allclose(ours_c, want_c, rtol=1e-10)


def test_lp_plus_plus_is_at_a_minimum_and_begins_as_zero_shot(data):
    import scipy.optimize

    text_cd, (rows_sd, label_s), (val_md, _), _ = data
    strong = heads._fitted(1e9, rows_sd, label_s, text_cd, 20.0)
    np.testing.assert_allclose(strong(val_md), 20.0 * val_md @ text_cd.T, atol=1e-4)
    l2, w = 0.1, heads._fitted(0.1, rows_sd, label_s, text_cd, 20.0)(np.eye(D)).T / 20

    def loss(move):  # of the head, where alpha stays and w takes all of the move
        logits = 20.0 * rows_sd @ (w + move.reshape(C, D)).T
        log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -log[np.arange(len(log)), label_s].mean()

    slope = scipy.optimize.approx_fprime(np.zeros(C * D), loss, 1e-6).reshape(C, D)
    own = -slope / l2  # at the minimum w is that, and the rest is alpha * text
    rest = w - own
    alpha_c = (rest * text_cd).sum(1)
    np.testing.assert_allclose(rest, alpha_c[:, None] * text_cd, atol=2e-3)
    want_c = 1 - (slope * text_cd).sum(1) / l2
    np.testing.assert_allclose(alpha_c, want_c, atol=5e-3)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "set features to 'embed_image', got 'features'"),
        ({"features": "embed_image", "zero_shot": False}, "set zero_shot to True"),
        ({"features": "embed_image", "val": None}, "'val' is missing"),
    ],
)
def test_keys_that_do_not_fit(keys, said):
    given = {"source": "x", "train": "x", "val": 0.2, "head": "tip_adapter"}
    with pytest.raises(ValueError, match=said):
        few_shot.Config(**given | keys)
