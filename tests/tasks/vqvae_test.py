"""The VQ-VAE task: what its loss is, what its codebook does, on any layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel
from mmjax.errors import UserError
from mmjax.state import Ctx, TrainState
from mmjax.tasks import base
from mmjax.train import optim, step

NET = {"kind": "conv", "widths": (16,), "stem": 4, "depth": 1, "decoder_depth": 1}
TOKENIZER = {"kind": "vqvae", "image_size": 16, "vocab_size": 24, "code_dim": 6}
TOKENIZER["net"] = NET
GRADIENT = {"tokenizer": TOKENIZER | {"ema": False}, "kmeans": 0, "revive_below": 0.0}


def task_of(**more):
    return base.build({"name": "vqvae", "tokenizer": TOKENIZER, **more})


def batch_of(rows=8, seed=0):
    """Blocks in twelve colours: pictures of 16 tokens with something to learn."""
    palette = np.random.default_rng(99).integers(0, 255, (12, 3))
    blocks = palette[np.random.default_rng(seed).integers(0, 12, (rows, 4, 4))]
    return {"image": blocks.repeat(4, 1).repeat(4, 2).astype(np.uint8)}


def ctx_at(number, **more):
    step_number = jnp.asarray(number, jnp.int32)
    rng = jax.random.fold_in(jax.random.key(7), number)
    return Ctx(rng=rng, step=step_number, train=True, **more)


def start(task):
    return jax.jit(task.init)(jax.random.key(0), batch_of())


@pytest.mark.parametrize("loss_name", ["l1", "l2"])
@pytest.mark.parametrize("more", [{}, GRADIENT], ids=["ema", "gradient"])
def test_the_loss_is_the_papers(more, loss_name):
    task = task_of(loss_name=loss_name, edges=0.5, **more)
    variables, batch = start(task), batch_of()
    ctx = ctx_at(5).replace(train=False)
    loss, (extra, metrics) = jax.jit(task.loss)(variables, batch, ctx)
    full = {"params": variables.params, **variables.extra}
    x = batch["image"].astype(np.float64) / 255
    z = np.asarray(task.model.apply(full, x.astype(np.float32), method="encode"))
    codes = np.asarray(task.model.apply(full, method="codes"))
    e = codes[((z[:, :, None] - codes) ** 2).sum(-1).argmin(-1)]
    y = np.asarray(task.model.apply(full, jnp.asarray(e), method="decode"))
    off = y - (2 * x - 1)
    error = np.abs(off).mean() if loss_name == "l1" else np.square(off).mean()
    weight = 0.25 if not more else 1.25
    turns = [np.square(np.diff(off, axis=axis)).mean() for axis in (1, 2)]
    want = error + weight * np.square(z - e).mean() + 0.5 * sum(turns)
    assert float(loss) == pytest.approx(want, rel=1e-4)
    assert float(metrics["reconstruction"]) == pytest.approx(error, rel=1e-4)
    shown = np.clip((y + 1) / 2, 0, 1)
    psnr = -10 * np.log10(np.square(shown - x).mean())
    assert float(metrics["psnr"]) == pytest.approx(psnr, rel=1e-4)
    for a, b in zip(
        jax.tree.leaves(extra), jax.tree.leaves(variables.extra), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_gradients_reach_encoder_decoder_and_a_learned_codebook():
    for more in ({}, GRADIENT):
        task = task_of(**more)
        variables = start(task)

        def loss(params, task=task, variables=variables):
            return task.loss(variables._replace(params=params), batch_of(), ctx_at(0))

        grads, _ = jax.grad(loss, has_aux=True)(variables.params)
        assert all(np.any(g) for g in jax.tree.leaves(grads["encoder"]["out"]))
        assert all(np.any(g) for g in jax.tree.leaves(grads["decoder"]["out"]))
        assert ("codebook" in grads) == bool(more)
        if more:
            assert np.any(grads["codebook"])


FLAT = {"warmup": 0, "schedule": "constant"}
SGD = optim.OptimConfig(name="sgd", lr=0.05, clip_norm=1.0, **FLAT)


def train(task, steps, layout=None, *, rows=8, optimizer=SGD, accum=1):
    """State and metrics after steps on one batch each."""
    layout = layout or parallel.Layout(devices=jax.devices()[:1])
    variables = jax.device_get(start(task))
    tx, _, _ = optim.make(optimizer, steps, variables.params, couples_rows=False)
    state = TrainState(
        step=np.zeros((), np.int32),
        vars=variables,
        opt_state=jax.device_get(tx.init(variables.params)),
        ema=None,
        rng=jax.random.key(1),
    )
    state = jax.device_put(state, layout.shardings(state))
    run = layout.compile_step(
        functools.partial(step.train_step, task, tx, axis=layout.axis, accum=accum),
        state,
    )
    metrics = {}
    for number in range(steps):
        state, metrics = run(state, layout.load(batch_of(rows, seed=number)))
    return jax.device_get(state), jax.device_get(metrics)


DYING = {"revive_below": 0.6, "decay": 0.7}


@pytest.mark.parametrize("more", [DYING, GRADIENT], ids=["ema", "grad"])
def test_pmap_is_jit_with_kmeans_and_revival(more):
    task = task_of(**more)
    one, metrics = train(task, 5)
    many, same = train(
        task,
        5,
        parallel.Layout(parallel.ParallelConfig(mode="pmap"), jax.devices()[:4]),
    )
    if "codebook" in one.vars.extra:
        assert one.vars.extra["codebook"]["initialised"] == 1
        assert metrics["dead"] > 0, "or revival was not tested"
    for tree in ("params", "extra"):
        want, got = getattr(one.vars, tree), getattr(many.vars, tree)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5), got, want
        )
    assert metrics.keys() == same.keys()
    for name in ("loss", "perplexity", "used", "psnr"):
        assert same[name] == pytest.approx(metrics[name], abs=1e-4), name


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_slices_move_the_codebook_once(mode):
    """Averages, k-means and revival see the whole batch, in however many slices."""
    task = task_of(start=1, **DYING)
    one, want = train(task, 4)
    accum, devices = (2, 4) if mode == "pmap" else (4, 1)
    cfg = parallel.ParallelConfig(mode=mode)
    layout = parallel.Layout(cfg, jax.devices()[:devices])
    sliced, got = train(task, 4, layout, accum=accum)
    book = one.vars.extra["codebook"]
    assert book["initialised"] == 1 and want["dead"] > 0
    for tree in ("params", "extra"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5),
            getattr(sliced.vars, tree),
            getattr(one.vars, tree),
        )
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-4, err_msg=name)


def test_kmeans_places_the_codes_once_and_at_the_start():
    task = task_of(revive_below=0.0, decay=0.999)
    variables, batch = start(task), batch_of()
    loss = jax.jit(task.loss)
    _, (extra, metrics) = loss(variables, batch, ctx_at(0))
    book = extra["codebook"]
    assert book["initialised"] == 1 and metrics["used"] > 0.9
    without = task_of(kmeans=0)
    _, (_, raw) = jax.jit(without.loss)(variables, batch, ctx_at(0))
    assert float(metrics["commitment"]) < 0.2 * float(raw["commitment"])
    after = variables._replace(extra=extra)
    _, (again, _) = loss(after, batch_of(seed=3), ctx_at(1))
    moved = np.abs(again["codebook"]["codes"] - book["codes"]).max()
    assert moved < 0.1 * np.abs(book["codes"]).max(), "followed, not placed again"


def test_codes_are_placed_when_asked():
    task = task_of(start=3)
    variables, batch = start(task), batch_of()
    loss = jax.jit(task.loss)
    _, (extra, metrics) = loss(variables, batch, ctx_at(2))
    for name, before in variables.extra["codebook"].items():
        np.testing.assert_array_equal(extra["codebook"][name], before)
    assert metrics["commitment"] == metrics["dead"] == 0
    _, (extra, metrics) = loss(variables._replace(extra=extra), batch, ctx_at(3))
    assert extra["codebook"]["initialised"] == 1 and metrics["commitment"] > 0


@pytest.mark.long
def test_training_uses_the_codebook_and_learns():
    task = task_of()
    _, before = train(task, 1, rows=32)
    adam = optim.OptimConfig(name="adam", lr=5e-3, **FLAT)
    state, metrics = train(task, 150, rows=32, optimizer=adam)
    assert metrics["reconstruction"] < 0.2 * before["reconstruction"]
    assert metrics["perplexity"] > 4 and metrics["collapsed"] == 0
    variance = float(state.vars.extra["likelihood"]["variance"])
    now, then = (10 ** (-float(m["psnr"]) / 10) for m in (metrics, before))
    assert now < variance < then, "an average over steps lags behind a falling error"


def test_predictions():
    task = task_of()
    variables, batch = start(task), batch_of(rows=4)
    ctx = ctx_at(0).replace(train=False)
    predict = {k: jax.jit(f) for k, f in task.predict().items()}
    tokens = predict["encode"](variables, batch, ctx)["image_tokens"]
    assert tokens.shape == (4, 16)
    image = predict["decode"](variables, {"image_tokens": tokens}, ctx)["image"]
    both = predict["reconstruct"](variables, batch, ctx)
    np.testing.assert_array_equal(both["image_tokens"], tokens)
    np.testing.assert_array_equal(both["image"], image)
    assert int(both["vocab_size"]) == 24
    terms = predict["elbo_terms"](variables, batch, ctx)
    np.testing.assert_allclose(terms["kl"], np.full(4, 16 * np.log(24)), rtol=1e-6)
    square = np.square(np.asarray(image) - batch["image"] / 255.0).sum((1, 2, 3))
    want = square / 2 + 16 * 16 * 3 / 2 * np.log(2 * np.pi)  # variance 1 at the start
    np.testing.assert_allclose(terms["reconstruction"], want, rtol=1e-4)
    assert predict["loss"](variables, batch, ctx)["loss"].shape == ()


@pytest.mark.parametrize(
    "more, words",
    [
        ({"loss_name": "l3"}, "loss_name is 'l3': use l1 or l2"),
        ({"decay": 1.0}, "decay is 1.0"),
        ({"comitment": 1.0}, "unknown key 'comitment'; did you mean 'commitment'"),
        ({"tokenizer": TOKENIZER | {"ema": False}}, "kmeans is 10 and revive_below"),
        ({"kmeans": 0, "start": 9}, "start is 9 and kmeans 0"),
        ({"tokenizer": {**TOKENIZER, "kind": "dvae", "net": {}}}, "unknown key"),
    ],
)
def test_wrong_fields_are_told(more, words):
    with pytest.raises(UserError, match=words):
        task_of(**more)


def test_another_kind_of_tokenizer_is_told():
    spec = {"kind": "dvae", "image_size": 16, "vocab_size": 24, "hidden": 8}
    with pytest.raises(UserError, match="tokenizer.kind is 'dvae': this task trains"):
        task_of(tokenizer=spec)


def test_data_of_another_size_are_told():
    with pytest.raises(
        UserError, match="image.size is 32, and the model takes images of 16"
    ):
        task_of().check({"image": {"shape": (32, 32, 3)}})
    task_of().check({"image": {"shape": (16, 16, 3)}})
