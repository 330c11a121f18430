"""What all stage-1 tasks share: one pass gives the loss and the image it is about."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import UserError
from mmjax.losses import quantize
from mmjax.state import Ctx, TrainState
from mmjax.tasks import base
from mmjax.train import step

CONV = {"kind": "conv", "widths": (8,), "stem": 4, "depth": 1, "decoder_depth": 1}
KL = {"width": 8, "mult": (1, 2), "depth": 1, "attention": (), "hidden": 4, "groups": 4}
SIZES = {"image_size": 16, "vocab_size": 24}
TASKS = {
    "dvae": {
        "tokenizer": SIZES
        | {"kind": "dvae", "hidden": 8, "groups": 3, "blocks_per_group": 1}
    },
    "vqvae": {"tokenizer": SIZES | {"kind": "vqvae", "net": CONV}},
    "gumbel_vq": {"tokenizer": SIZES | {"kind": "gumbel_vq", "net": CONV}},
    "autoencoder_kl": {"autoencoder": {"image_size": 16, "code_dim": 4, "net": KL}},
}
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module", params=TASKS)
def started(request):
    task = base.build({"name": request.param, **TASKS[request.param]})
    ctx = Ctx(rng=jax.random.key(5), step=jnp.asarray(3), train=False)
    return task, jax.jit(task.init)(jax.random.key(0), {"image": IMAGE}), ctx


def test_forward_has_the_loss_and_the_image_of_its_psnr(started):
    task, variables, ctx = started
    batch = {"image": IMAGE}
    out = jax.jit(task.forward)(variables, batch, ctx)
    loss, (_, metrics) = jax.jit(task.loss)(variables, batch, ctx)
    assert loss == out.loss and metrics.keys() == out.metrics.keys()
    off = jnp.clip(out.reconstruction, 0, 1) - IMAGE / np.float32(255)
    psnr = quantize.psnr(jnp.square(off).mean())
    np.testing.assert_allclose(out.metrics["psnr"], psnr, rtol=1e-5)


def test_gradients_go_through_the_reconstruction(started):
    task, variables, ctx = started

    def brightness(params):
        held = variables._replace(params=params)
        return task.forward(held, {"image": IMAGE}, ctx).reconstruction.mean()

    gradients = jax.tree.leaves(jax.jit(jax.grad(brightness))(variables.params))
    assert sum(float(jnp.abs(g).sum()) for g in gradients) > 0


def test_reconstruct_says_how_many_codes_there_are(started):
    task, variables, ctx = started
    out = jax.jit(task.predict()["reconstruct"])(variables, {"image": IMAGE}, ctx)
    assert out["image"].shape == IMAGE.shape and out["image"].dtype == jnp.float32
    assert 0 <= out["image"].min() and out["image"].max() <= 1
    if "tokenizer" in TASKS[task.__module__.rpartition(".")[2]]:
        assert out["vocab_size"] == 24 and out["image_tokens"].shape == (2, 16)


def test_averages_move_once_whatever_the_slices(started):
    """An update in two slices has the statistics and the metrics of the whole batch."""
    task, variables, _ = started
    tx, batch = optax.sgd(1e-3), {"image": np.concatenate([IMAGE, 255 - IMAGE])}
    found = []
    for accum in (1, 2):
        state = TrainState(
            step=jnp.int32(7),
            vars=variables,
            opt_state=tx.init(variables.params),
            ema=None,
            rng=jax.random.key(2),
        )
        run = functools.partial(step.train_step, task, tx, accum=accum)
        state, metrics = jax.jit(run)(state, batch)
        metrics.pop(step.GRAD_SQ)
        found.append({"extra": state.vars.extra, "metrics": metrics})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4), *found)


def test_hard_codes_at_evaluation_whatever_the_step():
    """Gumbel VQ: training at the end of the schedule is what evaluation always is."""
    task = base.build({"name": "gumbel_vq", **TASKS["gumbel_vq"]})
    variables = jax.jit(task.init)(jax.random.key(0), {"image": IMAGE})
    rng, loss = jax.random.key(5), jax.jit(task.loss)
    evaluated = [
        loss(variables, {"image": IMAGE}, Ctx(rng=rng, step=jnp.int32(n)))
        for n in (0, 2_000_000)
    ]
    end = Ctx(rng=rng, step=jnp.int32(2_000_000), train=True)
    for train in (task, dataclasses.replace(task, straight_through=False)):
        want, (_, metrics) = jax.jit(train.loss)(variables, {"image": IMAGE}, end)
        assert metrics["temperature"] == pytest.approx(1e-6)
        for got, (_, more) in evaluated:
            assert got == pytest.approx(float(want), rel=1e-5)
            assert "temperature" not in more


def test_codes_pass_straight_through_in_training():
    """Hard codes, with the gradient of the relaxed ones."""
    task = base.build({"name": "gumbel_vq", **TASKS["gumbel_vq"]})
    variables = jax.jit(task.init)(jax.random.key(0), {"image": IMAGE})
    ctx = Ctx(rng=jax.random.key(5), step=jnp.int32(0), train=True)
    soft = dataclasses.replace(task, straight_through=False)
    batch = {"image": IMAGE}

    def run(task, params):
        held = variables._replace(params=params)
        return task.forward(held, batch, ctx).reconstruction.sum()

    hard = jax.jit(task.forward)(variables, batch, ctx).reconstruction
    held = jax.jit(task.forward)(variables, batch, ctx.replace(train=False))
    np.testing.assert_allclose(hard, held.reconstruction, atol=1e-5)
    mixed = jax.jit(soft.forward)(variables, batch, ctx).reconstruction
    assert jnp.abs(mixed - hard).max() > 1e-3
    grads = jax.jit(jax.grad(functools.partial(run, task)))(variables.params)
    assert jnp.abs(grads["logits_of"]["kernel"]).max() > 0


LATENTS = {"autoencoder": TASKS["autoencoder_kl"]["autoencoder"] | {"scale": 0.0}}


def test_latents_have_unit_variance_by_their_own_scale():
    """The scale is 1 / std of the sampled latents that training saw, and is kept."""
    task = base.build({"name": "autoencoder_kl", "decay": 0.9, **LATENTS})
    variables = jax.jit(task.init)(jax.random.key(0), {"image": IMAGE})
    assert variables.extra["latents"] == {"mean": 0.0, "square": 1.0}
    rng, moments = jax.random.key(5), []
    for number in range(2):
        batch = {"image": IMAGE if number == 0 else IMAGE // 3}
        ctx = Ctx(rng=rng, step=jnp.int32(number), train=True)
        full = {"params": variables.params, **variables.extra}
        moments_of = jax.jit(functools.partial(task.model.apply, method="moments"))
        mean, log_variance = moments_of(full, batch["image"] / np.float32(255))
        noise = jax.vmap(lambda k, s=mean.shape[1:]: jax.random.normal(k, s))(
            ctx.example_keys(2)
        )
        z = np.asarray(mean + jnp.exp(0.5 * log_variance) * noise, np.float64)
        moments.append((z.mean(), np.square(z).mean()))
        _, (extra, metrics) = jax.jit(task.loss)(variables, batch, ctx)
        variables = variables._replace(extra=extra)
    first, square = np.asarray(moments).T @ (0.9, 0.1)
    scale = 1 / np.sqrt(square - first**2)
    assert float(metrics["scale"]) == pytest.approx(scale, rel=1e-4)
    ctx = ctx.replace(train=False)
    latent = jax.jit(task.encode)(variables, batch, ctx)["latent"]
    np.testing.assert_allclose(latent, mean * scale, rtol=1e-3, atol=1e-5)
    fixed = base.build(
        {"name": "autoencoder_kl", "autoencoder": LATENTS["autoencoder"] | {"scale": 2}}
    )
    assert (
        "latents"
        not in jax.eval_shape(fixed.init, jax.random.key(0), {"image": IMAGE}).extra
    )
    got = jax.jit(task.decode)(variables, {"latent": latent}, ctx)["image"]
    plain = variables._replace(extra={})
    want = jax.jit(fixed.decode)(plain, {"latent": 2 * mean}, ctx)
    np.testing.assert_allclose(got, want["image"], atol=1e-5)


def test_a_learned_variance_weighs_the_error():
    """`error / exp(s) + s`, which is least where exp(s) is the error."""
    task = base.build({"name": "autoencoder_kl", "learned_variance": True, **LATENTS})
    variables = jax.jit(task.init)(jax.random.key(0), {"image": IMAGE})
    assert variables.params["log_variance"] == 0.0
    ctx = Ctx(rng=jax.random.key(5), step=jnp.int32(0))

    @jax.jit
    def loss(s):
        params = variables.params | {"log_variance": s}
        return task.loss(variables._replace(params=params), {"image": IMAGE}, ctx)

    base_loss, (_, metrics) = loss(0.0)
    error = float(metrics["reconstruction"])
    rest = float(base_loss) - error
    value, slope = jax.value_and_grad(lambda s: loss(s)[0])(-1.0)
    assert float(value) == pytest.approx(error * np.e - 1 + rest, rel=1e-5)
    assert float(slope) == pytest.approx(1 - error * np.e, rel=1e-4)


def test_another_image_size(started):
    task, _, _ = started
    text = rf"size is 32, and .* of 16: set config.task.{task.SPEC}.image_size to 32"
    with pytest.raises(UserError, match=text):
        task.check({"image": {"shape": (32, 32, 3)}})
