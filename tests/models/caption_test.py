"""Decoders of captions: against numpy, and whole captions against word by word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.errors import UserError
from mmjax.models import caption

B, M, N, D, V = 3, 5, 4, 6, 11
SIZES = {"image": {}, "image_size": 0, "vocab_size": V, "context": M}
DECODERS = {
    "lstm": {"width": 8},
    "soft": {"width": 8, "word_width": 6},
    "hard": {"width": 8},
    "transformer": {"width": 8, "heads": 2, "depth": 2},
    "transformer pooled": {"width": 8, "heads": 2, "depth": 1, "queries": 3},
}


def make(name, **more):
    decoder = {"kind": name.split()[0]} | DECODERS[name] | more
    model = caption.build(decoder, **SIZES)
    rng = np.random.default_rng(0)
    cells = jnp.asarray(rng.normal(size=(B, 2, 2, D)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, V, (B, M)), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), cells, ids)["params"]
    params = jax.tree.map(  # nothing is zero or one
        lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), params
    )
    return model, params, cells, ids


@pytest.mark.parametrize("name", DECODERS)
def test_word_by_word_is_the_whole(name):
    model, params, cells, ids = make(name)
    call = jax.jit(lambda *args: model.apply({"params": params}, *args))
    logits, look = call(cells, ids)
    k = 2  # two rows of every image, the second one's words in reverse
    both = jnp.stack([ids, ids[:, ::-1]], 1).reshape(B * k, M)

    @jax.jit
    def by_word():
        memory, state = model.apply({"params": params}, cells, k, method="begin")
        out = []
        for m in range(M):
            args = memory, state, both[:, m], jnp.int32(m)
            logits_bv, state, seen = model.apply(
                {"params": params}, *args, method="step"
            )
            out.append((logits_bv, seen))
        return out

    steps = by_word()
    got = np.stack([x for x, _ in steps], 1).reshape(B, k, M, V)
    np.testing.assert_allclose(got[:, 0], logits, atol=1e-4)
    np.testing.assert_allclose(got[:, 1], call(cells, ids[:, ::-1])[0], atol=1e-4)
    if name == "lstm":
        assert look is None and steps[0][1] is None
        return
    seen = np.stack([x for _, x in steps], 1)
    np.testing.assert_allclose(seen.sum(-1), 1, atol=1e-5)
    if look is not None:
        np.testing.assert_allclose(
            seen.reshape(B, k, M, N)[:, 0], look.weight, atol=1e-5
        )
    if name == "hard":
        assert set(np.unique(seen)) == {0, 1}


@pytest.mark.parametrize("name", ["soft", "transformer"])
def test_no_word_sees_those_after_it(name):
    model, params, cells, ids = make(name)
    later = ids.at[:, 3:].set((ids[:, 3:] + 1) % V)
    call = jax.jit(lambda ids: model.apply({"params": params}, cells, ids)[0])
    changed = np.abs(call(ids) - call(later)).max((0, 2))
    assert (changed[:3] == 0).all() and (changed[3:] > 1e-3).all()


def test_soft_attention_in_numpy():
    """Xu et al. 2015, section 3.1.2 and 4.2.1, one row and word after the other."""
    model, params, cells, ids = make("soft")
    got, look = jax.jit(model.apply)({"params": params}, cells, ids)
    p, sigmoid = jax.tree.map(np.asarray, params["decoder"]), scipy.special.expit

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name].get("bias", 0)

    for b in range(B):
        a = np.asarray(cells[b]).reshape(N, D)
        spread = np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        a = (a - a.mean(-1, keepdims=True)) / spread
        a = a * p["norm"]["scale"] + p["norm"]["bias"]
        h, c = np.split(np.tanh(dense("start", a.mean(0))), 2)
        a = dense("cells", a)
        for m in range(M):
            word = p["token_embedding"][ids[b, m]]
            score = dense("score", np.tanh(dense("cell_key", a) + dense("query", h)))
            alpha = scipy.special.softmax(score[:, 0])
            z = sigmoid(dense("gate", h)) * (alpha @ a)
            gates = dense("word", word) + dense("recur", h) + dense("glimpse", z)
            i, f, o, g = np.split(gates, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            deep = word + dense("from_state", h) + dense("from_glimpse", z)
            want = dense("head", np.tanh(deep))
            np.testing.assert_allclose(got[b, m], want, atol=1e-4)
            np.testing.assert_allclose(look.weight[b, m], alpha, atol=1e-5)


def test_draws_follow_the_rows():
    """Dropout and drawn cells of a row are the same, whatever rows are beside it."""
    model, params, cells, ids = make("hard", dropout=0.3)
    keys = jax.random.split(jax.random.key(1), B)
    apply = jax.jit(lambda *args: model.apply({"params": params}, *args))
    whole, look = apply(cells, ids, keys)
    part, _ = apply(cells[1:2], ids[1:2], keys[1:2])
    np.testing.assert_allclose(part[0], whole[1], atol=1e-5)
    assert np.abs(apply(cells, ids)[0] - whole).max() > 1e-2
    mean = np.asarray((look.log_place == 0).all(-1))  # rows that take the mean
    weight = np.asarray(look.weight)
    assert ((weight == 0) | (weight == 1)).all((1, 2)).tolist() == (~mean).tolist()


@pytest.mark.parametrize(
    ("decoder", "more", "what"),
    [
        ({"kind": "lsdm"}, {}, "decoder.kind is 'lsdm'; did you mean 'lstm'"),
        ({"kind": "soft", "heads": 2}, {}, "decoder 'soft' has no 'heads'"),
        ({"kind": "lstm", "attention": "soft"}, {}, "has no 'attention'"),
        (
            {"kind": "soft"},
            {"image": {"kind": "conv"}, "image_size": 32},
            "of kind 'conv', which gives no cells: use kind vit",
        ),
    ],
)
def test_what_is_wrong_is_said(decoder, more, what):
    with pytest.raises(UserError, match=what):
        caption.build(decoder, **SIZES | more)
