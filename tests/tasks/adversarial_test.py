"""VQGAN's stage: the gradients of both players, when they learn, what it refuses."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import perceptual
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax.train import optim

CONV = {"kind": "conv", "widths": (8,), "stem": 4, "depth": 0, "decoder_depth": 1}
KL = {"width": 4, "mult": (1,), "depth": 1, "attention": (), "middle": False}
KL |= {"hidden": 4, "groups": 2}
SIZES = {"image_size": 16, "vocab_size": 24}
DVAE = {"kind": "dvae", "hidden": 8, "groups": 3, "blocks_per_group": 1}
INNER = {
    "dvae": {"tokenizer": SIZES | DVAE},
    "vqvae": {"tokenizer": SIZES | {"kind": "vqvae", "net": CONV}},
    "gumbel_vq": {"tokenizer": SIZES | {"kind": "gumbel_vq", "net": CONV}},
    "autoencoder_kl": {
        "autoencoder": {"image_size": 16, "code_dim": 4, "net": KL},
        "learned_variance": True,
    },
}
TOWER = {"kind": "conv", "width": 8, "depths": (1,)}
FEATURES = {"classes": 3, "image_size": 16, "image": TOWER, "weight": 0.7}
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)}
START, WARMUP = 9, 4


def task_of(name="vqvae", **more):
    fields = {"discriminator": {"width": 4, "depth": 1}, "start": START, "weight": 0.6}
    fields |= {"warmup": WARMUP, "perceptual": FEATURES} | more
    inner = {"name": name, **INNER[name]}
    return base.build({"name": "adversarial", "stage1": inner, **fields})


def ctx_at(number, **more):
    return Ctx(rng=jax.random.key(5), step=jnp.int32(number), train=True, **more)


@pytest.fixture(scope="module", params=("vqvae", "autoencoder_kl"))
def started(request):
    """(task, variables, its compiled gradients)."""
    task = task_of(request.param)
    variables = jax.jit(task.init)(jax.random.key(0), BATCH)
    if "log_variance" in variables.params:
        params = {**variables.params, "log_variance": jnp.float32(-0.5)}
        variables = variables._replace(params=params)
    return task, variables, jax.jit(task.grads)


def by_hand(task, variables, ctx):
    """(generator's gradient, the discriminator's, adaptive weight): one loss each."""
    player = variables.params["discriminator"]
    stats = {"batch_stats": variables.extra["discriminator_stats"]}
    held = task.learned(variables)
    x = BATCH["image"] / np.float32(255)

    def scores(player, image):
        out = task.player.apply(
            {"params": player, **stats},
            2 * image - 1,
            train=True,
            mutable=["batch_stats"],
        )
        return out[0]

    def parts(params):
        out = task.inner.forward(held._replace(params=params), BATCH, ctx)
        network, frozen = task.network, variables.frozen["features"]
        y, real = out.reconstruction, network.stages(frozen, x)
        apart = 0.7 * perceptual.distance(network.stages(frozen, y), real)
        if "log_variance" in params:
            apart = apart * jnp.exp(-params["log_variance"])
        return out.loss + apart, -scores(player, y).mean()

    outputs, pull = jax.vjp(parts, held.params)
    ones = [jnp.ones_like(out) for out in outputs]

    def last(*weights):
        grads = pull(tuple(w * one for w, one in zip(weights, ones, strict=True)))[0]
        name = "conv_out" if "conv_out" in grads["decoder"] else "out"
        return jnp.linalg.norm(grads["decoder"][name]["kernel"])

    adaptive = last(1, 0) / (last(0, 1) + 1e-4)
    whole = pull((ones[0], 0.6 * adaptive * ones[1]))[0]
    fake = task.inner.forward(held, BATCH, ctx).reconstruction

    def discriminated(player):
        real_loss = jnp.maximum(0, 1 - scores(player, x)).mean()
        return 0.5 * (real_loss + jnp.maximum(0, 1 + scores(player, fake)).mean())

    return whole, jax.grad(discriminated)(player), adaptive


def test_both_players_have_the_gradient_of_their_own_loss(started):
    task, variables, grads = started
    ctx = ctx_at(START)
    got, extra, metrics = grads(variables, BATCH, ctx)
    player = got.pop("discriminator")
    want, of_player, adaptive = jax.jit(functools.partial(by_hand, task))(
        variables, ctx
    )
    assert metrics["adaptive_weight"] == pytest.approx(float(adaptive), rel=1e-3)
    for have, wanted in ((got, want), (player, of_player)):
        assert jax.tree.structure(have) == jax.tree.structure(wanted)
        for a, b in zip(*map(jax.tree.leaves, (have, wanted)), strict=True):
            np.testing.assert_allclose(
                a, b, rtol=2e-3, atol=1e-5 * np.abs(b).max() + 1e-7
            )
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(player)) > 1e-3
    assert jax.tree.structure(extra) == jax.tree.structure(variables.extra)


def test_until_the_discriminator_learns_the_inner_task_learns_alone(started):
    task, variables, grads = started
    ctx = ctx_at(START - WARMUP - 1)
    alone, extra, metrics = grads(variables, BATCH, ctx)
    for leaf in jax.tree.leaves(alone.pop("discriminator")):
        assert not np.any(leaf)
    assert metrics["discriminator"] == metrics["adaptive_weight"] == 0
    stats = extra.pop("discriminator_stats")
    jax.tree.map(
        np.testing.assert_array_equal, stats, variables.extra["discriminator_stats"]
    )
    held = task.learned(variables)
    _, (moved, told) = jax.jit(task.inner.loss)(held, BATCH, ctx)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), extra, moved)
    assert told.keys() <= metrics.keys()
    # ... then the discriminator alone, on the same image: the generator sees nothing.
    later, _, metrics = grads(variables, BATCH, ctx_at(START - 1))
    assert metrics["adaptive_weight"] == 0 < metrics["discriminator"]
    assert np.any(later.pop("discriminator")["out"]["kernel"])


def test_what_it_predicts_is_what_the_inner_task_predicts(started):
    task, variables, _ = started
    ctx = ctx_at(0).replace(train=False)
    assert task.predict().keys() == task.inner.predict().keys()
    held = task.learned(variables)
    want = jax.jit(task.inner.predict()["reconstruct"])(held, BATCH, ctx)
    got = jax.jit(task.predict()["reconstruct"])(variables, BATCH, ctx)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, want)


@pytest.mark.parametrize("name", INNER)
def test_any_stage_1_task_plays(name):
    task = task_of(name)
    variables = jax.eval_shape(task.init, jax.random.key(0), BATCH)
    grads, extra, metrics = jax.eval_shape(task.grads, variables, BATCH, ctx_at(0))
    _, (kept, _) = jax.eval_shape(task.loss, variables, BATCH, ctx_at(0))
    pairs = (grads, variables.params), (extra, variables.extra), (kept, variables.extra)
    for have, want in pairs:
        shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), t) for t in (have, want)]
        assert shapes[0] == shapes[1]
    assert {"loss", "psnr", "perceptual", "unbalanced"} <= metrics.keys()
    assert all(value.shape == () for value in metrics.values())


@pytest.mark.parametrize(
    ("real", "fake", "sees", "want"),
    [
        (1.0, 0.99, True, 1),
        (1.0, 0.99, False, 0),
        (1.0, 0.97, True, 0),
        (0, 1, True, 0),
    ],
)
def test_the_alarm_of_a_discriminator_that_is_right_on_both_sides(
    real, fake, sees, want
):
    accuracies = {
        "real_accuracy": jnp.float32(real),
        "fake_accuracy": jnp.float32(fake),
    }
    game = types.SimpleNamespace(**accuracies)
    told = task_of(perceptual={})._balance(game, jnp.asarray(sees), ctx_at(0))
    assert told == {**accuracies, "unbalanced": want}


def test_without_features_there_is_no_perceptual_loss():
    task = task_of(perceptual={})
    variables = jax.eval_shape(task.init, jax.random.key(0), BATCH)
    assert task.features is None and not variables.frozen
    metrics = jax.eval_shape(task.grads, variables, BATCH, ctx_at(0))[2]
    assert "perceptual" not in metrics and "adversarial" in metrics


def test_slices_are_refused():
    task, cfg = task_of(), optim.OptimConfig(accum=2)
    with pytest.raises(UserError, match="accum is 2, but this task's loss couples row"):
        optim.make(cfg, 9, {}, couples_rows=task.couples_rows)
    variables = jax.eval_shape(task.init, jax.random.key(0), BATCH)
    with pytest.raises(UserError, match="config.optim.accum is 2, and the adaptive"):
        jax.eval_shape(
            task.grads, variables, BATCH, Ctx(jax.random.key(0), 0, stride=2)
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"warmup": START + 1}, f"warmup is {START + 1} and start {START}"),
        (
            {"discriminator": {"width": 4, "depth": 3}},
            "depth is 3, and images of 16 px|depth is 3",
        ),
        ({"discriminator": {"widht": 4}}, "discriminator: .*widht"),
        (
            {"perceptual": {**FEATURES, "image_size": 32}},
            "image_size is 32, and the images",
        ),
        ({"perceptual": {**FEATURES, "weight": -1.0}}, "perceptual_weight"),
        ({"last_layer": "decoder/oot/kernel"}, "last_layer is 'decoder/oot/kernel'"),
        (
            {"stage1": {"name": "classifier", "classes": 3, "image_size": 8}},
            "rebuilds no im",
        ),
        (
            {"stage1": {"name": "vqvea"}},
            "config.task.stage1.name is 'vqvea', but there",
        ),
        ({"stage1": {"name": "vqvae", "tokens": 3}}, "config.task.stage1: .*tokens"),
    ],
)
def test_refusals_say_what_to_change(given, message):
    with pytest.raises(UserError, match=message):
        task = task_of(**given)
        jax.eval_shape(task.init, jax.random.key(0), BATCH)


def test_images_of_another_size_name_the_key():
    with pytest.raises(
        UserError, match="set config.task.stage1.tokenizer.image_size to 32"
    ):
        task_of().check({"image": {"shape": (32, 32, 3)}})
