"""The captioning task: its loss by hand, what it says, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

B, L, D, V = 4, 6, 5, 12
SOT, EOT = V - 2, V - 1
SPEC = {
    "features": {"kind": "latents", "shape": (4, D), "dtype": "float32"},
    "tokens": {"kind": "text", "shape": (L,), "dtype": "int32", "vocab_size": V},
}


def make(kind="soft", decoder=None, **more):
    fields = {"name": "caption", "vocab_size": V, "context": L}
    fields["decoder"] = {"kind": kind, "width": 8} | (decoder or {})
    return base.build(fields | more)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    tokens, mask = np.zeros((B, L), np.int32), np.zeros((B, L), bool)
    for b in range(B):
        words = rng.integers(2, SOT, b + 1)
        tokens[b, : b + 3] = [SOT, *words, EOT]
        mask[b, : b + 3] = True
    features = rng.normal(size=(B, 4, D)).astype(np.float32)
    return {"features": features, "tokens": tokens, "tokens_mask": mask}


def ctx(*, train):
    return Ctx(rng=jax.random.key(7), step=jnp.int32(0), train=train)


def begun(task, batch):
    """Variables of which nothing is zero or one."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.7 * rng.normal(size=x.shape), jnp.float32),
        shapes.params,
    )
    return Vars(params, extra={"baseline": jnp.float32(-2.0)} if shapes.extra else {})


def test_the_loss_is_the_nats_of_captions_and_what_the_cells_lack():
    task, batch = make(doubly=0.5), rows()
    variables, here = begun(task, batch), ctx(train=False)

    @jax.jit
    def every(variables):
        args = batch["features"], batch["tokens"][:, :-1]
        whole = task.model.apply({"params": variables.params}, *args)
        by_row = task.predict()["loss"](variables, batch, here)
        return whole, by_row, task.loss(variables, batch, here)

    (logits, look), by_row, (value, (extra, metrics)) = every(variables)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    want = []
    for b in range(B):
        words = batch["tokens"][b, 1 : b + 3]
        nats = -log_p[b, np.arange(b + 2), words].sum()
        seen = np.asarray(look.weight)[b, : b + 2].sum(0)
        want.append(nats + 0.5 * np.square(1 - seen).sum())
    assert value == pytest.approx(np.mean(want), abs=1e-4) and extra == {}
    assert 0 < metrics["word_nats"] < value
    np.testing.assert_allclose(by_row["loss"], want, atol=1e-4)


def test_hard_attention_moves_its_baseline():
    task, batch = make("hard"), rows()
    variables, here = begun(task, batch), ctx(train=True)
    _, (extra, metrics) = jax.jit(lambda v: task.loss(v, batch, here))(variables)
    want = 0.9 * -2.0 - 0.1 * float(metrics["word_nats"])
    assert extra["baseline"] == pytest.approx(want, abs=1e-5)


def test_greedy_captions_are_the_most_probable_words():
    how = {"k": 1, "forbid": (0, 1)}
    task, batch = make(sampling=how), rows()
    variables = begun(task, batch)
    said = jax.jit(lambda v, x: task.predict()["caption"](v, x, ctx(train=False)))
    out = said(variables, batch)
    apply = jax.jit(task.model.apply)
    for b in range(B):
        ids = [SOT]
        while ids[-1] != EOT and len(ids) < L:
            padded = np.zeros((1, L - 1), np.int32)
            padded[0, : len(ids)] = ids
            args = batch["features"][b : b + 1], padded
            logits = np.array(apply({"params": variables.params}, *args)[0])
            logits[..., :2] = -np.inf
            ids.append(int(logits[0, len(ids) - 1].argmax()))
        ids += [EOT] * (L - len(ids))
        assert out["caption"][b, 0].tolist() == ids[1:]
    seen = jax.jit(lambda v, x: task.predict()["attention"](v, x, ctx(train=False)))
    weight = seen(variables, batch | {"caption": out["caption"][:, 0]})
    assert weight.shape == (B, L - 1, 4)
    np.testing.assert_allclose(weight.sum(-1), 1, atol=1e-5)


def test_drawn_captions_end_and_follow_the_seed():
    how = {"method": "sample", "k": 5, "top_p": 0.9}
    task = make("lstm", sampling=how)
    batch = rows()
    variables = begun(task, batch)
    said = jax.jit(lambda v, x: task.predict()["caption"](v, x, ctx(train=False)))
    out, again = said(variables, batch), said(variables, batch)
    assert out["caption"].shape == (B, 5, L - 1)
    assert (out["caption"] == again["caption"]).all()
    assert len(np.unique(np.asarray(out["caption"]).reshape(B * 5, -1), axis=0)) > 5
    ended = np.cumsum(np.asarray(out["caption"]) == EOT, axis=-1) > 0
    assert (np.asarray(out["caption"])[ended] == EOT).all()
    assert "attention" not in task.predict()


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"doubly": 1.0, "kind": "lstm"}, "doubly is 1.0 and decoder.kind 'lstm': set"),
        ({"image_size": 32}, "image is .* and image_size 32: give both, or neither"),
        ({"sampling": {"k": 0}}, "k is 0: use 1 or more"),
        ({"sampling": {"top_p": 2.0}}, "top_p is 2.0: use more than 0"),
        ({"sampling": {"method": "beem"}}, "method"),
        ({"kind": "gru"}, "decoder.kind is 'gru'"),
    ],
)
def test_fields_that_do_not_go_together(more, what):
    with pytest.raises(UserError, match=what):
        make(**more)


def test_data_that_do_not_fit():
    make().check(SPEC)
    with pytest.raises(UserError, match="12 ids .* and the model 9"):
        make(vocab_size=9).check(SPEC)
    with pytest.raises(UserError, match="context of 6, and the model 5"):
        make(context=5).check(SPEC)
    wide = {"k": 11, "forbid": (0, 1)}
    with pytest.raises(UserError, match="k is 11 beams, and the vocabulary has 10 ids"):
        make(sampling=wide).check(SPEC)
