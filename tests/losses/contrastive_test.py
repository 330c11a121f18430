"""Contrastive losses against the pseudocode they come from, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import contrastive

N, D = 9, 5


def embeddings(n=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, D)), rng.normal(size=(n, D))


def l2_normalize_np(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cross_entropy_np(logits, labels, axis):
    """Mean of -log softmax over `axis` at the labels."""
    if axis == 0:
        logits = logits.T
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return np.mean(log_sum - logits[np.arange(len(labels)), labels])


def pseudocode_np(image_f, text_f, t):
    """Radford et al. 2021, figure 3, from features that are already projected."""
    image_e, text_e = l2_normalize_np(image_f), l2_normalize_np(text_f)
    logits = np.dot(image_e, text_e.T) * np.exp(t)
    labels = np.arange(len(logits))
    loss_i = cross_entropy_np(logits, labels, axis=0)
    loss_t = cross_entropy_np(logits, labels, axis=1)
    return (loss_i + loss_t) / 2


def ours(loss, image, text, *args, **kwargs):
    image, text = (contrastive.l2_normalize(jnp.asarray(x)) for x in (image, text))
    return jax.jit(loss)(image, text, *args, **kwargs)


@pytest.mark.parametrize("t", [0.0, np.log(1 / 0.07), np.log(100.0)])
def test_info_nce_is_the_pseudocode(t):
    image, text = embeddings()
    got = ours(contrastive.info_nce, image, text, np.exp(t))
    assert got == pytest.approx(pseudocode_np(image, text, t), abs=1e-6, rel=1e-6)


def test_info_nce_is_log_b_at_equal_logits():
    same = np.ones((N, D))
    got = ours(contrastive.info_nce, same, same, 100.0)
    assert got == pytest.approx(np.log(N), abs=8e-6)  # of logits of 100


def test_positives_share_the_target():
    image, text = embeddings()
    equal = np.arange(N) // 2
    positives = equal[:, None] == equal[None]
    logits = 7.0 * l2_normalize_np(image) @ l2_normalize_np(text).T
    want = 0.0
    for x, hits in ((logits, positives), (logits.T, positives.T)):
        logp = x - np.log(np.exp(x).sum(1, keepdims=True))
        target = hits / hits.sum(1, keepdims=True)
        want += -np.mean((target * logp).sum(1)) / 2
    got = ours(contrastive.info_nce, image, text, 7.0, positives=positives)
    assert got == pytest.approx(want, abs=1e-6)
    # A mask without the diagonal still counts it: a row is always its own positive.
    off_diagonal = positives & ~np.eye(N, dtype=bool)
    again = ours(contrastive.info_nce, image, text, 7.0, positives=off_diagonal)
    assert again == got
    alone = ours(contrastive.info_nce, image, text, 7.0, positives=np.eye(N) > 0)
    plain = ours(contrastive.info_nce, image, text, 7.0)
    assert alone == pytest.approx(float(plain), abs=1e-6)


def test_identical_captions_as_positives_lose_nothing_to_each_other():
    image = text = np.ones((4, D))

    def loss(image):
        return ours(contrastive.info_nce, image, text, 50.0, positives=np.ones((4, 4)))

    got, grad = jax.jit(jax.value_and_grad(loss))(image)
    assert got == pytest.approx(np.log(4), abs=1e-5)
    np.testing.assert_allclose(grad, 0, atol=1e-5)


def test_sigmoid_is_siglips():
    image, text = embeddings()
    z = 2 * np.eye(N) - 1
    cosine = l2_normalize_np(image) @ l2_normalize_np(text).T
    want = -np.mean(np.sum(-np.log1p(np.exp(-z * (10 * cosine - 10))), axis=1))
    got = ours(contrastive.sigmoid, image, text, 10.0, -10.0)
    assert got == pytest.approx(want, rel=1e-6)
    flipped = ours(contrastive.sigmoid, image, text, 10.0, -10.0, positives=z > -2)
    all_match = -np.mean(np.sum(-np.log1p(np.exp(-(10 * cosine - 10))), axis=1))
    assert flipped == pytest.approx(all_match, rel=1e-6)


def test_half_precision_inputs_give_a_float32_loss():
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in embeddings())
    assert contrastive.info_nce(image, text, 1.0).dtype == jnp.float32
    assert contrastive.sigmoid(image, text, 1.0, 0.0).dtype == jnp.float32


def test_a_zero_row_normalises_to_zero_with_finite_gradient():
    x = jnp.zeros((2, D)).at[1].set(3.0)
    np.testing.assert_allclose(
        jnp.linalg.norm(contrastive.l2_normalize(x), axis=1), [0, 1]
    )
    grad = jax.jit(jax.grad(lambda x: contrastive.l2_normalize(x).sum()))(x)
    assert np.all(np.isfinite(grad))
    np.testing.assert_array_equal(grad[0], 0)
