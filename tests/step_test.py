"""The step on a linear model: accumulation, averages, keys."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax import step
from mmjax.state import Ctx, TrainState, Vars


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
