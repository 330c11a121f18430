"""Contrastive divergence against enumeration, chains as state, and bad input."""

import itertools
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax import tree
from mmjax.errors import UserError
from mmjax.models import boltzmann, pathway
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import loop, restore

ROOT = pathlib.Path(__file__).resolve().parents[2]

BITS = {"visible": "bernoulli", "units": 6, "widths": (4,)}


PLAIN = {"bits": BITS}


def make(pathways=None, **more):
    return base.build(
        {"name": "boltzmann", "pathways": PLAIN if pathways is None else pathways}
        | more
    )


def rows(n=32, units=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n, units)) < rng.random(units)).astype(np.float32)


def started(task, batch, scale=0.7):
    """Variables whose parameters are N(0, scale^2)."""
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    rng = np.random.default_rng(4)
    params = jax.tree.map(
        lambda x: jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32),
        variables.params,
    )
    return variables._replace(params=params)


def ctx(step=0):
    step = jnp.asarray(step, jnp.int32)
    return Ctx(rng=jax.random.key(7), step=step, train=True)


def exact_gradient(params, x):
    """Of -mean ln p(x), the model's statistics by enumeration."""
    weight, bias = params["weight"]["bits"]["bits1"], params["bias"]
    weight, b, c = (np.asarray(a, np.float64) for a in (weight, *bias.values()))
    states = np.array(list(itertools.product((0.0, 1.0), repeat=len(b))))
    log_p = states @ b + np.logaddexp(0, states @ weight + c).sum(1)
    p = np.exp(log_p - scipy.special.logsumexp(log_p))

    def statistics(v, share):
        h = scipy.special.expit(v @ weight + c)
        return (v * share[:, None]).T @ h, share @ v, share @ h

    data = statistics(x, np.full(len(x), 1 / len(x)))
    model = statistics(states, p)
    return [m - d for m, d in zip(model, data, strict=True)]


@pytest.mark.parametrize(
    "how", [{"persistent": False}, {"persistent": True, "chains": 4000}]
)
def test_long_chains_give_the_gradient_of_the_likelihood(how):
    """CD from 4,000 copies of the data, or as many chains, after 60 sweeps."""
    task, x = make(sweeps=60, **how), rows()
    batch = {"bits": np.tile(x, (125, 1)) if not how["persistent"] else x}
    variables = started(task, batch)
    grads, extra, metrics = jax.jit(task.grads)(variables, batch, ctx())
    want = exact_gradient(variables.params, x)
    got = grads["weight"]["bits"]["bits1"], grads["bias"]["bits"]
    for g, w in zip((*got, grads["bias"]["bits1"]), want, strict=True):
        np.testing.assert_allclose(g, w, atol=0.03)
    assert np.isfinite(float(metrics["loss"]))
    np.testing.assert_allclose(extra["rates"]["bits"], x.mean(0), atol=1e-5)


def test_learns_two_patterns():
    """And forgets its start: the data get most of the probability."""
    x = np.tile(np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], np.float32), (8, 1))
    task = make(chains=64, fast=0.02, sweeps=2)
    variables = jax.jit(task.init)(jax.random.key(0), {"bits": x})

    def update(variables, step):
        grads, extra, metrics = task.grads(variables, {"bits": x}, ctx(step))
        move = jax.tree.map(lambda p, g: p - 0.2 * g, variables.params, grads)
        return variables._replace(params=move, extra=extra), metrics["loss"]

    train = jax.jit(lambda v: jax.lax.scan(update, v, jnp.arange(600)))
    variables, _ = train(variables)
    every = np.array(list(itertools.product((0, 1), repeat=6)), np.float32)
    free = boltzmann.free_energy(task.model.machine, variables.params, {"bits": every})
    p = scipy.special.softmax(-np.asarray(free, np.float64))
    assert p[[0b111000, 0b000111]].sum() > 0.8 and p[0b111000] > 0.25


def test_sparsity_pulls_the_activity_to_its_target():
    batch = {"bits": rows()}
    plain, sparse = make(), make(sparsity=0.5, target=0.1, decay=0.0)
    variables = started(sparse, batch)
    grads, extra, _ = jax.jit(sparse.grads)(variables, batch, ctx())
    other = variables._replace(
        extra={k: variables.extra[k] for k in ("rates", "chains")}
    )
    without, _, _ = jax.jit(plain.grads)(other, batch, ctx())
    h = boltzmann.means(
        sparse.model.machine, variables.params, {"bits": batch["bits"]}, ["bits1"]
    )["bits1"]
    np.testing.assert_allclose(extra["activity"]["bits1"], h.mean(0), atol=1e-6)
    far = 0.5 * (h.mean(0) - 0.1)
    np.testing.assert_allclose(
        grads["bias"]["bits1"] - without["bias"]["bits1"], far, atol=1e-6
    )
    weight = [g["weight"]["bits"]["bits1"] for g in (grads, without)]
    want = np.outer(batch["bits"].mean(0), far)
    np.testing.assert_allclose(weight[0] - weight[1], want, atol=1e-6)


WORDS = {"visible": "softmax", "units": 5, "words": 3, "widths": (3,)}
TWO = {"bits": {**BITS, "missing": "infer"}, "words": WORDS}


@pytest.fixture(scope="module", params=["dbm", "dbn"])
def deep(request):
    """(task, variables, batch) of two pathways under one layer."""
    pathways = TWO if request.param == "dbm" else {"bits": BITS, "words": WORDS}
    task = make(pathways, joint=4, kind=request.param, pretrain=2, chains=6)
    words = np.random.default_rng(1).integers(0, 3, (8, 5)).astype(np.float32)
    batch = {"bits": rows(8), "words": words}
    return task, started(task, batch, 0.3), batch


def test_levels_are_trained_in_turn_and_then_the_whole(deep):
    task, variables, batch = deep
    grads_of, turns = jax.jit(task.grads), []
    for step in (0, 1, 2, 3, 4, 50):
        grads, extra, metrics = grads_of(variables, batch, ctx(step))
        assert jax.tree.structure(extra) == jax.tree.structure(variables.extra)
        assert np.isfinite(float(metrics["loss"]))
        flat = jax.tree_util.tree_leaves_with_path(grads["weight"])
        turns.append({p[1].key for p, g in flat if np.abs(g).max() > 0})
    first, second = {"bits1", "words1"}, {"joint"}
    assert turns == [first, first, second, second, first | second, first | second]
    if task.kind == "dbn":  # what points up: equal at first, then its own
        grads = grads_of(variables, batch, ctx(0))[0]
        np.testing.assert_array_equal(
            grads["up"]["weight"]["bits"]["bits1"], grads["weight"]["bits"]["bits1"]
        )
        grads = grads_of(variables, batch, ctx(50))[0]
        assert not np.allclose(
            grads["up"]["weight"]["bits"]["bits1"], grads["weight"]["bits"]["bits1"]
        )


def test_what_it_predicts(deep):
    task, variables, batch = deep
    predict, alone = task.predict(), {"bits": batch["bits"]}
    candidate = np.tile(np.arange(2, dtype=np.int32), (8, 1))
    given = alone | {"seed": np.arange(8, dtype=np.uint32), "candidate": candidate}

    @jax.jit
    def every(batch, alone, given):
        return {
            "features": predict["features"](variables, batch, ctx()),
            "inferred": predict["features"](variables, alone, ctx()),
            "log_score": predict["log_score"](variables, batch, ctx()),
            "loss": predict["loss"](variables, batch, ctx())["loss"],
            "words": predict["sample"](variables, given, ctx())["words"],
        }

    first = every(batch, alone, given)
    features = first["features"]
    assert features.shape == (8, 4) and (features > 0).all() and (features < 1).all()
    assert not np.allclose(first["inferred"], features)
    assert first["log_score"].shape == first["loss"].shape == (8,)
    assert first["words"].shape == (8, 2, 5)
    np.testing.assert_allclose(first["words"].sum(-1), 3, atol=1e-5)
    # a candidate follows from its row, whatever the others are
    turned = {name: x[::-1] for name, x in given.items()} | {
        "candidate": candidate[:, ::-1]
    }
    again = every(batch, alone, turned)["words"]
    np.testing.assert_allclose(again[::-1, ::-1], first["words"], atol=1e-5)


@pytest.mark.parametrize("pretrain", [0, 1])
def test_what_rows_hold_without_a_field_does_not_matter(pretrain):
    words = np.ones((8, 5), np.float32)
    batch = {"bits": rows(8), "words": words}
    batch["bits_present"] = np.arange(8) < 4
    other = {
        **batch,
        "bits": np.where(batch["bits_present"][:, None], batch["bits"], 1),
    }
    task = make(TWO, joint=4, chains=6, pretrain=pretrain)
    variables = started(task, batch, 0.3)
    grads_of = jax.jit(task.grads)
    grads = [grads_of(variables, b, ctx())[0] for b in (batch, other)]
    for one, two in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_array_equal(one, two)


def test_images_texts_and_labels_become_states():
    task = make(
        {
            "image": {"units": 4, "channels": 1, "binarise": True},
            "tokens": {"visible": "softmax", "units": 6, "words": 4},
            "label": {"visible": "softmax", "units": 3},
        },
        joint=2,
    )
    batch = {
        "image": np.repeat(np.uint8([0, 255]), 12).reshape(2, 2, 2, 3),
        "tokens": np.array([[4, 1, 1, 2, 5], [4, 5, 0, 0, 0]], np.int32),
        "tokens_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool),
        "label": np.array([2, -1], np.int32),
    }
    states = task.visible(batch, jax.random.split(jax.random.key(0), 2))
    np.testing.assert_array_equal(states["image"], [[0] * 4, [1] * 4])
    np.testing.assert_allclose(
        states["tokens"], [[0, 8 / 3, 4 / 3, 0, 0, 0], [0] * 6], atol=1e-6
    )
    np.testing.assert_array_equal(states["label"], [[0, 0, 1], [0, 0, 0]])
    several = {name: batch[name].reshape(1, 2, 5) for name in ("tokens", "tokens_mask")}
    states = task.visible(several, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_allclose(states["tokens"], [[0, 8 / 3, 4 / 3, 0, 0, 0]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pathways": {}}, "pathways is empty"),
        ({"pathways": {"bits": {"units": 6}}}, "widths is empty and joint 0"),
        ({"pathways": {"a": BITS, "b": BITS}}, "joint is 0 and there are 2 pathways"),
        ({"pretrain": 5}, "pretrain is 5, and an RBM has one level"),
        ({"kind": "dbn"}, "which is an RBM"),
        ({"chains": 0}, "chains is 0"),
        (
            {"pathways": {"bits": {"units": 6, "channels": 1}}},
            "units is 6 and channels",
        ),
        (
            {"pathways": {"bits": BITS | {"visible": "softmax", "binarise": True}}},
            "bits are",
        ),
        ({"pathways": {"bits": BITS | {"widhts": (3,)}}}, "widths"),
    ],
)
def test_bad_fields_say_what_to_do(fields, message):
    with pytest.raises((UserError, ValueError), match=message):
        make(**fields)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "vector", "shape": (7,)}, "7 units .*units is 6: set it to 7"),
        ({"kind": "image", "shape": (2, 3, 3)}, "channels is 0: use 1 or 3"),
    ],
)
def test_fields_that_do_not_fit(spec, message):
    with pytest.raises(UserError, match=message):
        make().check({"bits": spec})


def test_optional_fields_need_a_rule():
    batch = {"bits": rows(4), "bits_present": np.ones(4, bool)}
    with pytest.raises(UserError, match=r"no rule for rows .*missing to 'zeros' or"):
        make().init(jax.random.key(0), batch)


def test_a_batch_without_a_field_is_refused():
    task = make(TWO, joint=4, chains=6)
    batch = {"bits": rows(4), "words": np.ones((4, 5), np.float32)}
    variables = started(task, batch)
    with pytest.raises(UserError, match="no words"):
        task.grads(variables, {"bits": batch["bits"]}, ctx())


@pytest.mark.long
def test_killed_and_resumed_with_its_chains(tmp_path):
    """kill -9 after a save, and on: parameters, chains and fast weights bit by bit."""
    more = ["--config.checkpoint.every=1", "--config.steps=8"]
    config = config_lib.load("configs/boltzmann.py:tiny", more)
    config.evals = {}
    loop.run(config, tmp_path / "whole")
    command = [sys.executable, "-m", "mmjax.cli", "train", "--config"]
    command += ["configs/boltzmann.py:tiny", "--workdir", str(tmp_path / "cut"), *more]
    command += ["--devices", str(jax.device_count())]
    other = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("cut/checkpoints/[1-6]")) and other.poll() is None:
        time.sleep(0.01)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert not list(tmp_path.glob("cut/checkpoints/8"))
    loop.run(config, tmp_path / "cut")

    def learned(workdir):
        variables = restore.restore(workdir)[1].vars
        return tree.flatten(jax.device_get({"p": variables.params, **variables.extra}))

    want, resumed = learned(tmp_path / "whole"), learned(tmp_path / "cut")
    assert "chains/image1" in want and want.keys() == resumed.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)


def test_filters_of_units_that_are_not_there():
    image = pathway.Pathway(visible="bernoulli", units=4, channels=1, widths=(3,))
    weight_du = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert image.filters(weight_du, np.arange(3)).shape == (3, 2, 2, 3)
    with pytest.raises(UserError, match="filters of 5 units .* has 3: use 3 or fewer"):
        image.filters(weight_du, np.arange(5))
