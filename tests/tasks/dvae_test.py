"""The dVAE's loss from its parts, its schedules, its alarm, and learning."""

import batch_fields
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.data import pipeline
from mmjax.data.fields import image
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.losses import categorical
from mmjax.state import Ctx, TrainState, Vars
from mmjax.tasks import base
from mmjax.train import optim
from mmjax.train import step as step_lib
from mmjax_configs import dvae as configs

SPEC = {
    "kind": "dvae",
    "image_size": 16,
    "vocab_size": 24,
    "hidden": 8,
    "groups": 2,
    "blocks_per_group": 1,
    "init_width": 8,
}
D, N, V = 16 * 16 * 3, 64, 24


def make(**more):
    return base.build({"name": "dvae", "tokenizer": SPEC, **more})


def batch(b=4):
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (b, 16, 16, 3), np.uint8)}


def ctx(step=0, train=False):
    return Ctx(rng=jax.random.key(5), step=jnp.asarray(step), train=train)


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(make().init, jax.random.key(0), batch())
    rng = np.random.default_rng(1)

    def draw(shape):
        scale = np.prod(shape.shape[:-1]) ** -0.5 if len(shape.shape) > 1 else 0.1
        return np.float32(scale * rng.normal(size=shape.shape))

    extra = {"relaxation": {"temperature": jnp.ones(())}}
    return Vars(jax.tree.map(draw, shapes.params), extra)


def with_temperature(variables, value):
    return variables._replace(extra={"relaxation": {"temperature": jnp.asarray(value)}})


def test_loss_from_its_parts(variables):
    """By numpy, from the networks' outputs and the task's noise."""
    task, rows = make(kl_steps=8, temperature_steps=16), batch()
    loss, (extra, metrics) = jax.jit(task.loss)(variables, rows, ctx(4, train=True))
    beta = 6.6 / 2  # half-way
    temperature = 1 / 16 + (1 - 1 / 16) * (1 + np.cos(np.pi / 4)) / 2
    assert metrics["kl_weight"] == pytest.approx(beta, rel=1e-6)
    assert metrics["temperature"] == pytest.approx(temperature, rel=1e-6)
    assert extra["relaxation"]["temperature"] == metrics["temperature"]

    everything = {"params": variables.params, **variables.extra}
    x = rows["image"] / 255.0
    logits = task.model.apply(everything, np.float32(x), method="logits")
    logits = np.asarray(logits, np.float64)
    noise = np.asarray(categorical.gumbel(ctx().example_keys(4), (N, V)))
    soft = np.exp((logits + noise) / temperature)
    soft /= soft.sum(-1, keepdims=True)
    out = task.model.apply(everything, np.float32(soft), method="decode")
    mean, log_b = (np.asarray(a, np.float64) for a in out)
    y = 0.8 * x + 0.1
    nll = np.log(2 * y * (1 - y)) + log_b
    nll += np.abs(np.log(y / (1 - y)) - mean) / np.exp(log_b)
    q = np.exp(logits - logits.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    kl = (q * np.log(q * V)).sum((1, 2))
    nll = nll.sum((1, 2, 3))
    assert loss == pytest.approx(((nll + beta * kl) / D).mean(), abs=1e-5)
    assert metrics["reconstruction"] == pytest.approx(nll.mean() / D, abs=1e-5)
    assert metrics["kl"] == pytest.approx(kl.mean() / N, rel=1e-4)
    elbo = -(nll - D * np.log(0.8) + kl).mean() / D
    assert metrics["elbo"] == pytest.approx(elbo, abs=1e-5)
    shown = np.clip((1 / (1 + np.exp(-mean)) - 0.1) / 0.8, 0, 1)
    psnr = -10 * np.log10(np.square(shown - x).mean())
    assert metrics["psnr"] == pytest.approx(psnr, abs=1e-3)
    ids = logits.argmax(-1)
    share = np.bincount(ids.ravel(), minlength=V) / ids.size
    some = share[share > 0]
    assert metrics["used"] == pytest.approx(len(some) / V)
    assert metrics["dead"] == V - len(some)
    assert metrics["perplexity"] == pytest.approx(
        np.exp(-(some * np.log(some)).sum()), rel=1e-4
    )


def test_gradients_reach_everything(variables):
    """No part of the networks is cut off: the encoder learns through soft codes."""
    task = make(kl_steps=0)

    def loss(params):
        return task.loss(variables._replace(params=params), batch(), ctx(train=True))[0]

    for path, g in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(variables.params)
    ):
        assert np.isfinite(g).all() and np.abs(g).max() > 0, path
    task = make(kl_weight=0.0)  # and not through the KL term alone
    encoder = jax.jit(jax.grad(loss))(variables.params)["encoder"]
    assert min(np.abs(g).max() for g in jax.tree.leaves(encoder)) > 0


def test_schedules():
    def at(step, start, end, steps):
        return float(base.cosine(jnp.asarray(step), start, end, steps))

    assert at(0, 0.0, 6.6, 5000) == 0
    assert at(2500, 0.0, 6.6, 5000) == pytest.approx(3.3)
    assert at(5000, 0.0, 6.6, 5000) == pytest.approx(6.6)
    assert at(10**9, 1.0, 1 / 16, 150_000) == pytest.approx(1 / 16)
    assert at(0, 0.0, 6.6, 0) == pytest.approx(6.6)
    falling = [at(s, 1.0, 1 / 16, 100) for s in range(0, 101, 10)]
    assert sorted(falling, reverse=True) == falling
    assert falling[1] > 0.97  # level at both ends, where a line would fall at once


def test_noise_is_a_rows_own(variables):
    """The first rows do not depend on how many follow."""
    predict = jax.jit(make().predict()["loss"])
    two = predict(variables, batch(2), ctx())
    four = predict(variables, {"image": batch(4)["image"]}, ctx())
    np.testing.assert_array_equal(batch(2)["image"], batch(4)["image"][:2])
    for name in ("loss", "elbo", "elbo_hard", "psnr"):
        np.testing.assert_allclose(two[name], four[name][:2], rtol=1e-5, err_msg=name)


def test_relaxed_and_hard_bounds(variables):
    task, rows = make(), batch()
    predict = {name: jax.jit(f) for name, f in task.predict().items()}
    got = predict["loss"](with_temperature(variables, 1.0), rows, ctx())
    assert {v.shape for k, v in got.items() if k not in USAGE} == {(4,)}
    np.testing.assert_allclose(got["gap"], got["elbo"] - got["elbo_hard"], atol=1e-6)
    assert np.abs(got["gap"]).min() > 1e-4
    cold = predict["loss"](with_temperature(variables, 1e-4), rows, ctx())
    np.testing.assert_allclose(cold["gap"], 0.0, atol=1e-5)
    np.testing.assert_allclose(cold["psnr"], cold["psnr_hard"], atol=1e-3)
    np.testing.assert_allclose(cold["elbo_hard"], got["elbo_hard"], atol=1e-6)
    # the same bound, from terms that are summed over a picture and not divided
    terms = predict["elbo_terms"](variables, rows, ctx())
    bound = -(terms["reconstruction"] + terms["kl"]) / D
    np.testing.assert_allclose(got["elbo_hard"], bound, atol=1e-5)
    assert (terms["kl"] > 0).all() and (terms["kl"] < N * np.log(V)).all()


USAGE = ("used", "perplexity", "dead", "collapsed")


def test_evaluation_weighs_the_kl_as_training_ends(variables):
    got = jax.jit(make(kl_weight=3.0).predict()["loss"])(variables, batch(), ctx())
    wanted = got["reconstruction"] + 3.0 * got["kl"] * N / D
    np.testing.assert_allclose(got["loss"], wanted, rtol=1e-5)


def test_tokens_there_and_back(variables):
    predict = {name: jax.jit(f) for name, f in make().predict().items()}
    tokens = predict["encode"](variables, batch(), ctx())
    assert tokens["image_tokens"].shape == (4, N)
    shown = predict["decode"](variables, tokens, ctx())["image"]
    both = predict["reconstruct"](variables, batch(), ctx())
    np.testing.assert_array_equal(both["image_tokens"], tokens["image_tokens"])
    np.testing.assert_array_equal(both["image"], shown)
    assert shown.shape == (4, 16, 16, 3) and 0 <= shown.min() and shown.max() <= 1


def test_collapse_is_told(variables):
    """A dead encoder uses one code; an alarm of 1 / 24 of the codes is then silent."""
    encoder = jax.tree.map(jnp.zeros_like, variables.params["encoder"])
    dead = variables._replace(params={**variables.params, "encoder": encoder})

    def metrics(variables, rows, **more):
        return jax.jit(make(**more).loss)(variables, rows, ctx(train=True))[1][1]

    got = metrics(dead, batch())
    assert got["used"] == pytest.approx(1 / V) and got["dead"] == V - 1
    assert got["perplexity"] == pytest.approx(1.0)
    assert got["kl"] == pytest.approx(0.0, abs=1e-6)
    assert got["collapsed"] == 1
    assert metrics(dead, batch(), alarm=0.04)["collapsed"] == 0
    fresh = metrics(variables, batch())
    assert fresh["collapsed"] == float(fresh["used"] < make().alarm)
    assert metrics(variables, batch(), alarm=1e-3)["collapsed"] == 0


def used(task, ids_bn):
    return task.usage(task.count(ids_bn, ctx()))


def test_even_use_is_full_use():
    got = used(make(), jnp.arange(2 * V).reshape(2, V) % V)
    assert got["used"] == 1 and got["dead"] == 0 and got["collapsed"] == 0
    assert got["perplexity"] == pytest.approx(V, rel=1e-5)


def test_the_alarm_asks_no_more_codes_than_there_are_tokens():
    two_of_16 = jnp.zeros((1, 16), jnp.int32).at[0, 0].set(1)
    assert used(make(alarm=0.12), two_of_16)["collapsed"] == 0  # 2/16; 2/24 is less
    assert used(make(alarm=0.13), two_of_16)["collapsed"] == 1


def test_extra_has_the_tokenizers_names_and_stays_in_evaluation(variables):
    task = make()
    shapes = jax.eval_shape(
        task.model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3))
    )
    held = {"params": variables.params, **variables.extra}
    assert jax.tree.map(jnp.shape, held) == jax.tree.map(jnp.shape, dict(shapes))
    _, (extra, _) = jax.jit(task.loss)(variables, batch(), ctx(step=3))
    assert extra["relaxation"]["temperature"] == 1
    _, (extra, _) = jax.jit(task.loss)(variables, batch(), ctx(step=10**6, train=True))
    assert jax.tree.structure(extra) == jax.tree.structure(variables.extra)
    assert extra["relaxation"]["temperature"] == pytest.approx(1 / 16)


def test_refuses():
    with pytest.raises(UserError, match="config.task: temperature is 0"):
        make(temperature=0.0)
    with pytest.raises(UserError, match="kl_steps is -1: use 0 or more"):
        make(kl_steps=-1)
    with pytest.raises(
        UserError, match="image.size is 32, and the model takes images of 16"
    ):
        make().check({"image": {"shape": (32, 32, 3)}})
    other = {"kind": "vqvae", "image_size": 16, "vocab_size": 8}
    with pytest.raises(UserError, match="'vqvae': this task trains 'dvae'"):
        base.build({"name": "dvae", "tokenizer": other})


@pytest.mark.long
def test_learns_scenes():
    source = open_source("shapes:train?size=16&count=64&objects=1")
    cfg = image.Field(size=16, mode="squash", train_scale=(1.0, 1.0))
    [rows] = pipeline.eval_batches(
        source, batch_fields.of(source, None, cfg), batch_size=64
    )
    rows = {"image": rows["image"]}
    task = make(kl_steps=0, kl_weight=1.0, temperature=0.5, temperature_steps=100)
    made, tx = jax.jit(task.init)(jax.random.key(0), rows), optax.adam(5e-3)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        vars=made,
        opt_state=tx.init(made.params),
        ema=None,
        rng=jax.random.key(0),
    )
    train = jax.jit(lambda state, rows: step_lib.train_step(task, tx, state, rows))
    first = jax.jit(task.predict()["loss"])(made, rows, ctx())
    for _ in range(150):
        state, metrics = train(state, rows)
    assert np.isfinite(metrics["loss"])
    last = jax.jit(task.predict()["loss"])(state.vars, rows, ctx())
    assert last["elbo_hard"].mean() > first["elbo_hard"].mean() + 0.5
    assert last["psnr_hard"].mean() > first["psnr_hard"].mean() + 5


def test_the_papers_learning_rate_is_down_after_1_200_000_updates():
    config = configs.get_config("paper")
    cfg = optim.OptimConfig(**config.optim.to_dict())
    lr = optim.schedule(cfg, config.steps)
    rates = [float(lr(n)) for n in (0, 600_000, 1_200_000, config.steps - 1)]
    want = [1e-4, (1e-4 + 1.25e-6) / 2, 1.25e-6, 1.25e-6]
    np.testing.assert_allclose(rates, want, rtol=1e-4)
