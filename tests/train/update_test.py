"""The whole step under one device, a mesh and pmap, for tasks of every shape.

Two players, chains in `extra`, empty parameters, a line search, losses over
neighbouring rows.
"""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel, schema, tree
from mmjax.errors import UserError
from mmjax.state import Vars
from mmjax.train import config as config_lib
from mmjax.train import loop, metric_writer, optim, restore, update

LAYOUTS = {
    "one device": ({"mode": "jit"}, 1),
    "jit 2x2": ({"mode": "jit", "mesh": {"data": 2, "fsdp": 2, "tensor": 1}}, 4),
    "pmap x4": ({"mode": "pmap"}, 4),
}
SGD = {"name": "sgd", "lr": 0.1, "warmup": 0, "schedule": "constant", "momentum": 0.9}
ROWS, WIDTH = 16, 4


def _batch(number: int) -> dict:
    rng = np.random.default_rng(number)
    x, y = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    return {"x": x, "y": y}


def train(task, config: dict, where: str, *, steps: int = 4, same=False) -> list[dict]:
    """Parameters, extra, average and metrics after each step, by path."""
    cfg, devices = LAYOUTS[where]
    typed = schema.from_mapping(parallel.ParallelConfig, cfg, "config.parallel")
    layout = parallel.Layout(typed, jax.devices()[:devices])
    rule = schema.from_mapping(optim.OptimConfig, config, "config.optim")
    made = update.build(task, rule, layout, steps=steps, batch=_batch(0))
    state = layout.init(made.init, jax.random.key(0), _batch(0))
    run, seen = layout.compile_step(made.step, state), []
    for number in range(steps):
        state, metrics = run(state, layout.load(_batch(0 if same else number)))
        kept = {"params": state.vars.params, "extra": state.vars.extra}
        kept |= {"ema": state.ema, "metrics": metrics}
        seen.append(tree.flatten(jax.device_get(kept)))
    return seen


def agree(task, config: dict, **how) -> list[dict]:
    """What one device gives, having seen that all layouts give the same."""
    want = train(task, config, "one device", **how)
    for where in LAYOUTS:
        for step, alone in zip(train(task, config, where, **how), want, strict=True):
            assert step.keys() == alone.keys()
            for path, value in alone.items():
                assert step[path].dtype == value.dtype, path
                # of numbers above 10, such as squared gradients, 1e-5 is their rounding
                atol = 1e-6 * np.abs(value).max(initial=10)
                np.testing.assert_allclose(step[path], value, atol=atol, err_msg=path)
    return want


class Players:
    """One draws vectors, the other tells them from the data's."""

    couples_rows = False

    def init(self, key, batch):
        draw, judge = jax.random.split(key)
        return Vars(
            {
                "draw": {"kernel": jax.random.normal(draw, (WIDTH, WIDTH))},
                "judge": {"kernel": jax.random.normal(judge, (WIDTH, 4))},
            }
        )

    def grads(self, variables, batch, ctx):
        keys_b = ctx.example_keys(len(batch["x"]))
        noise_bd = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys_b)

        def losses(params):
            drawn_bd = noise_bd @ params["draw"]["kernel"]
            judged = params["judge"]["kernel"]
            fake_b, real_b = (x @ judged for x in (drawn_bd, batch["x"]))
            fake_b, real_b = fake_b.sum(-1), real_b.sum(-1)
            return {
                "draw": jax.nn.softplus(-fake_b).mean(),
                "judge": (jax.nn.softplus(fake_b) + jax.nn.softplus(-real_b)).mean(),
            }

        values = losses(variables.params)
        grads = {
            player: jax.grad(lambda params, player=player: losses(params)[player])(
                variables.params
            )[player]
            for player in values
        }
        metrics = {"loss": values["judge"], "draw": values["draw"]}
        return grads, variables.extra, metrics


TURNS = {
    "draw": {"match": "^draw/", "every": 2, "offset": 1, "lr": 0.05},
    "judge": {"match": "^judge/", "every": 2},
}


@pytest.mark.parametrize("accum", [1, 2])
def test_two_players_take_turns(accum: int):
    config = SGD | {"groups": TURNS, "accum": accum, "ema": 0.9}
    seen = agree(Players(), config)
    draw, judge = ([s[f"params/{p}/kernel"] for s in seen] for p in ("draw", "judge"))
    assert (draw[1] == draw[2]).all() and (draw[2] != draw[3]).any()
    assert (judge[0] == judge[1]).all() and (judge[1] != judge[2]).any()
    assert (seen[3]["ema/draw/kernel"] != draw[3]).any()
    once = train(Players(), config | {"accum": 1}, "one device")
    for path, value in once[3].items():
        np.testing.assert_allclose(seen[3][path], value, atol=1e-5, err_msg=path)


class Boltzmann:
    """Persistent contrastive divergence of a visible Boltzmann machine.

    `chains` are floats and `ages` integers, one of each for every chain.
    """

    couples_rows = False
    chains = 8

    def init(self, key, batch):
        start_nd = jax.random.bernoulli(key, 0.5, (self.chains, WIDTH))
        extra = {"chains": start_nd.astype(jnp.float32)}
        extra["ages"] = jnp.zeros(self.chains, jnp.int32)
        return Vars({"kernel": jnp.zeros((WIDTH, WIDTH))}, extra)

    def grads(self, variables, batch, ctx):
        kernel = variables.params["kernel"]
        chains_nd, ages_n = ctx.mine(
            (variables.extra["chains"], variables.extra["ages"])
        )
        keys_n = ctx.example_keys(len(chains_nd))
        logits_nd = chains_nd @ (kernel + kernel.T)
        new_nd = jax.vmap(jax.random.bernoulli)(keys_n, jax.nn.sigmoid(logits_nd))
        new_nd = new_nd.astype(jnp.float32)
        real_bd = (batch["x"] > 0).astype(jnp.float32)
        phases = [x.T @ x / len(x) for x in (new_nd, real_bd)]
        extra = ctx.gather({"chains": new_nd, "ages": ages_n + 1})
        metrics = {"loss": jnp.mean(real_bd), "on": new_nd.mean()}
        return {"kernel": phases[0] - phases[1]}, extra, metrics


@pytest.mark.parametrize("accum", [1, 2])
def test_chains_are_one_set_over_devices(accum: int):
    seen = agree(Boltzmann(), SGD | {"accum": accum})
    chains = [s["extra/chains"] for s in seen]
    assert all(np.isin(c, (0, 1)).all() for c in chains)
    assert (chains[0] != chains[1]).any() and (chains[2] != chains[3]).any()
    assert len(np.unique(chains[3], axis=0)) > 2  # not one device's, four times over
    np.testing.assert_array_equal(seen[3]["extra/ages"], 4 * accum)


def test_chains_that_do_not_split_are_refused():
    task = Boltzmann()
    task.chains = 6
    with pytest.raises(UserError, match="6 rows do not split over 4 devices"):
        train(task, SGD, "pmap x4")


class Neighbours:
    """Every row is drawn to the next one of the batch, the last to the first."""

    couples_rows = True

    def init(self, key, batch):
        return Vars({"kernel": jax.random.normal(key, (WIDTH, WIDTH))})

    def loss(self, variables, batch, ctx):
        z_bd = jnp.tanh(batch["x"] @ variables.params["kernel"])
        next_bd = ctx.mine(jnp.roll(ctx.gather(z_bd), 1, axis=0))
        near_b, far_b = (jnp.sum((z_bd - o) ** 2, -1) for o in (next_bd, batch["y"]))
        return jnp.mean(near_b + far_b), (variables.extra, {"near": near_b.mean()})


def test_rows_meet_their_neighbours_on_other_devices():
    agree(Neighbours(), SGD)


class Noisy(Neighbours):
    """The same, with noise drawn by row: a line search must meet it unchanged."""

    def loss(self, variables, batch, ctx):
        keys_b = ctx.example_keys(len(batch["x"]))
        noise_bd = jax.vmap(lambda key: jax.random.normal(key, (WIDTH,)))(keys_b)
        return super().loss(variables, batch | {"x": batch["x"] + noise_bd / 9}, ctx)


LBFGS = {"name": "lbfgs", "lr": 1.0, "warmup": 0, "schedule": "constant"}


def test_lbfgs_searches_along_the_global_loss():
    agree(Noisy(), LBFGS)
    seen = agree(Neighbours(), LBFGS, same=True, steps=8)
    values = [step["metrics/loss"] for step in seen]
    assert all(
        after < before for before, after in zip(values, values[1:], strict=False)
    )
    plain = train(Neighbours(), SGD, "one device", same=True, steps=8)
    assert values[-1] < plain[-1]["metrics/loss"]


def test_lbfgs_needs_a_loss_and_parameters():
    with pytest.raises(UserError, match="gives gradients of its own"):
        train(Players(), LBFGS, "one device")
    with pytest.raises(UserError, match="has no parameters"):
        train(Moments(), LBFGS, "one device")


def test_accumulation_does_not_pass_by_grads():
    """`embed` says how to slice a loss, and not how to slice `grads`."""

    class Both(Players):
        couples_rows = True
        embed = loss_of = None

    with pytest.raises(UserError, match="couples rows"):
        train(Both(), SGD | {"accum": 2}, "one device")


@dataclasses.dataclass(frozen=True)
class Moments:
    """The mean of what it has seen: no parameters, no gradients."""

    couples_rows = False
    reads = ("image",)

    def check(self, spec):
        pass

    def init(self, key, batch):
        return Vars({}, {"mean": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)})

    def _errors(self, variables, batch):
        x_b = batch["image" if "image" in batch else "x"].astype(jnp.float32)
        x_b = x_b.reshape(len(x_b), -1).mean(-1)
        return x_b, (x_b - variables.extra["mean"]) ** 2

    def loss(self, variables, batch, ctx):
        x_b, loss_b = self._errors(variables, batch)
        mean, count = variables.extra["mean"], variables.extra["count"] + 1
        extra = {"mean": mean + (x_b.mean() - mean) / count, "count": count}
        return loss_b.mean(), (extra, {})

    def predict(self):
        return {"loss": lambda v, batch, ctx: {"loss": self._errors(v, batch)[1]}}


@pytest.mark.parametrize("more", [{}, {"accum": 2, "ema": 0.9, "clip_norm": 1.0}])
def test_empty_parameters_train(more: dict):
    seen = agree(Moments(), SGD | {"weight_decay": 0.1} | more)
    assert seen[3]["extra/count"] == 4 * more.get("accum", 1)
    want = np.mean([_batch(number)["x"].mean() for number in range(4)])
    np.testing.assert_allclose(seen[3]["extra/mean"], want, atol=1e-6)


def test_empty_parameters_run_save_and_resume(tmp_path, monkeypatch):
    module = types.ModuleType("mmjax.tasks.moments")
    module.Task = Moments
    monkeypatch.setitem(sys.modules, module.__name__, module)
    steps = ["--config.steps=4", "--config.checkpoint.every=2"]
    config = config_lib.load("configs/classifier.py:tiny", steps).unlock()
    config.task = {"name": "moments"}
    config.optim.lr_mult = ()
    config.log_every = 1
    whole = loop.run(config, tmp_path / "whole")
    config.steps = 2
    loop.run(config, tmp_path / "half")
    config.steps = 4
    again = loop.run(config, tmp_path / "half")
    assert whole == again and whole
    states = [restore.restore(tmp_path / name)[1] for name in ("whole", "half")]
    assert int(states[0].vars.extra["count"]) == 4
    assert states[0].vars.extra["mean"] == states[1].vars.extra["mean"]
    rows = metric_writer.read(tmp_path / "whole")
    assert rows[0]["grad_norm"] == 0
