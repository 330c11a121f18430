"""The objectives of fragments against loops over images, sentences and their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import contrastive, fragments


@pytest.fixture(scope="module")
def parts():
    """(regions (3, 4, 5), fragments (3, 3, 5), their masks), of unlike numbers."""
    rng = np.random.default_rng(0)
    regions = rng.normal(size=(3, 4, 5)).astype(np.float32)
    sentence = rng.normal(size=(3, 3, 5)).astype(np.float32)
    masks = np.arange(4) < np.array([[4], [2], [3]]), np.arange(3) < [[1], [3], [2]]
    return regions, sentence, *masks


def sets(parts):
    regions, sentence, region_mask, mask = parts
    images = [x[m] for x, m in zip(regions, region_mask, strict=True)]
    return images, [x[m] for x, m in zip(sentence, mask, strict=True)]


@pytest.mark.parametrize("form", ["sum", "max"])
def test_scores(parts, form):
    dots = fragments.products(*parts[:2])
    got = fragments.scores(dots, *parts[2:], form=form, smooth=5.0)
    images, texts = sets(parts)
    for b, image in enumerate(images):
        for m, text in enumerate(texts):
            dot = image @ text.T
            each = dot.max(0) if form == "max" else np.maximum(dot, 0).mean(0)
            assert got[b, m] == pytest.approx(each.sum() / (len(text) + 5), abs=1e-5)


def test_attention_is_scans(parts):
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in parts[:2]]
    got = fragments.attended(*unit, *parts[2:], sharpness=9.0)
    images, texts = sets((*unit, *parts[2:]))
    for b, image in enumerate(images):
        for m, text in enumerate(texts):
            near = np.maximum(image @ text.T, 0)
            near = near / np.sqrt((near**2).sum(1, keepdims=True) + 1e-8)
            share = np.exp(9 * near) / np.exp(9 * near).sum(0)
            seen = share.T @ image
            cosine = (seen * text).sum(1) / np.linalg.norm(seen, axis=1)
            assert got[b, m] == pytest.approx(cosine.mean(), abs=1e-4)


def test_the_best_regions_make_one_cosine(parts):
    regions = parts[0] / np.linalg.norm(parts[0], axis=-1, keepdims=True)
    got = fragments.matched(regions, *parts[1:])
    images, texts = sets((regions, *parts[1:]))
    for b, image in enumerate(images):
        for m, text in enumerate(texts):
            best = (image @ text.T).max(0).sum()
            want = best / np.linalg.norm(text.sum(0))
            assert got[b, m] == pytest.approx(want, abs=1e-5)
    one = fragments.matched(regions[:, :1], parts[1], parts[2][:, :1], parts[3])
    cosine = regions[0, 0] @ texts[1].sum(0) / np.linalg.norm(texts[1].sum(0))
    assert one[0, 1] == pytest.approx(cosine, abs=1e-5)


def test_contrastive_is_clips(parts):
    image, text = contrastive.l2_normalize(parts[0][:, 0]), parts[1][:, 0]
    text = contrastive.l2_normalize(text)
    got = fragments.contrastive(image @ text.T, 7.0)
    assert float(got) == pytest.approx(
        float(contrastive.info_nce(image, text, 7.0)), abs=1e-6
    )


def test_ranking():
    scores = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    rows, columns = np.zeros((4, 4)), np.zeros((4, 4))
    for k in range(4):
        for other in set(range(4)) - {k}:
            rows[k, other] = max(0, scores[k, other] - scores[k, k] + 0.7)
            columns[k, other] = max(0, scores[other, k] - scores[k, k] + 0.7)
    want = (rows.sum() + columns.sum()) / 4
    assert fragments.ranking(scores, 0.7) == pytest.approx(want, abs=1e-5)
    want = (rows.max(1) + columns.max(1)).mean()
    assert fragments.ranking(scores, 0.7, hardest=True) == pytest.approx(want, abs=1e-5)
    assert fragments.ranking(10 * jnp.eye(4), 1.0) == 0


@pytest.mark.parametrize("multiple", [False, True])
def test_alignment(parts, multiple):
    dots = fragments.products(*parts[:2])
    got = fragments.alignment(dots, *parts[2:], multiple_instance=multiple)
    images, texts = sets(parts)
    total = 0.0
    for m, text in enumerate(texts):
        for fragment in text:
            hinges = {1: [], -1: []}
            for b, image in enumerate(images):
                dot = image @ fragment
                y = np.full(len(image), 1 if b == m else -1)
                if b == m and multiple:
                    y = np.where(dot > 0, 1, -1)
                    y[dot.argmax()] = 1
                for sign, value in zip(y, dot, strict=True):
                    hinges[sign].append(max(0, 1 - sign * value))
            total += sum(np.mean(part) for part in hinges.values() if part)
    assert got == pytest.approx(total / 3, rel=1e-5)


def test_supervised(parts):
    dots = np.random.default_rng(2).normal(size=(3, 4, 3)).astype(np.float32)
    gold = np.array([[0, -1, -1], [1, 0, 1], [-1, -1, -1]])
    got = fragments.supervised(dots, parts[2], gold)
    want = []
    for b in range(3):
        count = parts[2][b].sum()
        nats = [
            np.log(np.exp(dots[b, :count, k]).sum()) - dots[b, gold[b, k], k]
            for k in range(3)
            if gold[b, k] >= 0
        ]
        want.append(np.mean(nats) if nats else 0.0)
    assert got == pytest.approx(np.mean(want), abs=1e-5)


def test_padding_is_not_seen(parts):
    """Neither values nor gradients depend on what lies where the masks are False."""
    regions, sentence, *masks = map(jnp.asarray, parts)

    def loss(regions, sentence):
        dots = fragments.products(regions, sentence)
        value = fragments.alignment(dots, *masks)
        value += fragments.ranking(fragments.scores(dots, *masks), 1.0)
        value += fragments.matched(regions, sentence, *masks).sum()
        return (
            value + fragments.attended(regions, sentence, *masks, sharpness=9.0).sum()
        )

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, grads = both(regions, sentence)
    moved = [
        jnp.where(m[..., None], x, 9.0)
        for x, m in zip((regions, sentence), masks, strict=True)
    ]
    again, more = both(*moved)
    assert again == pytest.approx(float(value), rel=1e-5)
    for one, two, mask in zip(grads, more, masks, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
        assert (
            np.isfinite(one).all() and (np.asarray(one)[~np.asarray(mask)] == 0).all()
        )
