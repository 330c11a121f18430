"""The step on a linear model: accumulation, averages, keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.state import Ctx, TrainState, Vars
from mmjax.train import step


class Linear:
    """Least squares: rows do not couple."""

    couples_rows = False

    def loss(self, variables, batch, ctx):
        error_b = batch["x"] @ variables.params["w"] - batch["y"]
        return jnp.mean(error_b**2), (variables.extra, {"mae": jnp.abs(error_b).mean()})


def _state(tx, ema=None) -> TrainState:
    params = {"w": jnp.arange(3.0)}
    return TrainState(
        step=jnp.int32(0),
        vars=Vars(params),
        opt_state=tx.init(params),
        ema=params if ema else None,
        rng=jax.random.key(0),
    )


def _batch() -> dict:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=8)
    return {"x": jnp.float32(x), "y": jnp.float32(y)}


def test_gradient_against_numpy():
    tx, batch = optax.sgd(0.1), _batch()
    new, metrics = jax.jit(functools.partial(step.train_step, Linear(), tx))(
        _state(tx), batch
    )
    x, y, w = np.asarray(batch["x"]), np.asarray(batch["y"]), np.arange(3.0)
    grad = 2 * x.T @ (x @ w - y) / 8
    np.testing.assert_allclose(new.vars.params["w"], w - 0.1 * grad, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(grad), rtol=1e-5)
    assert int(new.step) == 1


def test_accumulation_equals_one_big_batch():
    tx, batch = optax.sgd(0.1), _batch()
    once, m1 = step.train_step(Linear(), tx, _state(tx), batch)
    four, m4 = step.train_step(Linear(), tx, _state(tx), batch, accum=4)
    np.testing.assert_allclose(once.vars.params["w"], four.vars.params["w"], rtol=1e-5)
    np.testing.assert_allclose(m1["loss"], m4["loss"], rtol=1e-5)


def test_average_follows_parameters():
    tx = optax.sgd(0.1)
    new, _ = step.train_step(
        Linear(), tx, _state(tx, ema=True), _batch(), ema_decay=0.9
    )
    decay = min(0.9, 1 / 10)  # step 0
    want = decay * jnp.arange(3.0) + (1 - decay) * new.vars.params["w"]
    np.testing.assert_allclose(new.ema["w"], want, rtol=1e-6)


def test_example_keys_follow_the_global_row():
    key, n = jax.random.key(3), 8
    ctx = Ctx(rng=key, step=jnp.int32(0))
    want = jax.random.key_data(ctx.example_keys(n))

    def mapped(rows):
        keys = Ctx(rng=key, step=jnp.int32(0), axis="data").example_keys(len(rows))
        return jax.random.key_data(keys)

    got = jax.pmap(mapped, axis_name="data")(jnp.zeros((4, n // 4)))
    np.testing.assert_array_equal(np.asarray(got).reshape(want.shape), want)


class Coupled:
    """Two linear towers with noise by row; every row's loss depends on all rows."""

    couples_rows = True

    def embed(self, variables, batch, ctx):
        keys_b = ctx.example_keys(len(batch["x"]))
        noise_bd = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys_b)
        x_bd = (batch["x"] + noise_bd) @ variables.params["w"]
        extra = {"mean": ctx.mean(x_bd.mean(0))}
        return {"x": jnp.tanh(x_bd), "y": batch["x"] * variables.params["v"]}, extra

    def loss_of(self, variables, embedded, batch, ctx):
        x_bd, y_bd = ctx.gather((embedded["x"], embedded["y"]))
        logits_bb = jnp.exp(variables.params["t"]) * x_bd @ y_bd.T
        loss = -jnp.diagonal(jax.nn.log_softmax(logits_bb)).mean()
        return loss, {"t": variables.params["t"]}

    def loss(self, variables, batch, ctx):
        embedded, extra = self.embed(variables, batch, ctx)
        loss, metrics = self.loss_of(variables, embedded, batch, ctx)
        return loss, (extra, metrics)


def _coupled_state(tx) -> TrainState:
    params = {"w": jnp.eye(3) / 2, "v": jnp.arange(3.0), "t": jnp.float32(0.1)}
    return _state(tx).replace(
        vars=Vars(params, {"mean": jnp.zeros(3)}), opt_state=tx.init(params)
    )


def test_coupled_rows_accumulate_to_one_big_batch():
    """Loss, gradients and noise of four slices are those of the whole batch."""
    tx, batch = optax.sgd(0.1), _batch()
    got = {}
    for accum in (1, 2, 4):
        run = jax.jit(functools.partial(step.train_step, Coupled(), tx, accum=accum))
        state = _coupled_state(tx)
        for _ in range(3):
            state, metrics = run(state, batch)
        got[accum] = {**state.vars.params, "loss": metrics["loss"]}
    for accum in (2, 4):
        for name, value in got[1].items():
            np.testing.assert_allclose(got[accum][name], value, rtol=1e-5, err_msg=name)


def test_coupled_rows_accumulate_under_pmap():
    tx, batch = optax.sgd(0.1), _batch()
    once, _ = step.train_step(Coupled(), tx, _coupled_state(tx), batch)
    mapped = jax.pmap(
        functools.partial(step.train_step, Coupled(), tx, axis="data", accum=2),
        axis_name="data",
        in_axes=(None, 0),
        out_axes=(None, None),
        devices=jax.devices()[:2],
    )
    parts = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
    twice, _ = mapped(_coupled_state(tx), parts)
    for name, value in once.vars.params.items():
        np.testing.assert_allclose(twice.vars.params[name], value, rtol=1e-5)


def test_extra_of_coupled_rows_goes_from_slice_to_slice():
    """Batch statistics are those of a slice: what is kept is the last slice's."""
    tx, batch = optax.sgd(0.1), _batch()
    new, _ = step.train_step(Coupled(), tx, _coupled_state(tx), batch, accum=4)
    keys = Ctx(rng=jax.random.fold_in(jax.random.key(0), 0), step=0).example_keys(8)
    noise = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
    last = ((batch["x"] + noise) @ (jnp.eye(3) / 2))[3::4]
    np.testing.assert_allclose(new.vars.extra["mean"], last.mean(0), rtol=1e-5)


def test_slices_draw_the_numbers_of_the_whole_batch():
    ctx = Ctx(rng=jax.random.key(3), step=jnp.int32(0))
    want = jax.random.key_data(ctx.example_keys(8))
    for number in range(4):
        got = ctx.replace(offset=number, stride=4).example_keys(2)
        np.testing.assert_array_equal(jax.random.key_data(got), want[number::4])
