"""CLIP's forms of one loss, by the training loop and in slices of a batch."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from mmjax import parallel, tree
from mmjax.errors import UserError
from mmjax.state import Ctx, TrainState
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import loop, restore, setup, step

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERRIDES = (
    "--config.optim.name=sgd",
    "--config.optim.lr=0.05",
    "--config.optim.schedule=constant",
    "--config.parallel.mesh.data=2",
    "--config.parallel.mesh.fsdp=2",
    "--config.task.equal_captions=positive",
    "--config.task.loss_block=3",
    "--config.task.image.depth=1",
    "--config.task.text.depth=1",
    "--config.checkpoint.every=4",
)
FIELDS = {
    "name": "clip",
    "embed_dim": 16,
    "vocab_size": 64,
    "context": 8,
    "image_size": 32,
    "image": {"kind": "conv", "width": 8, "depths": (1, 1)},
    "text": {"kind": "cbow", "width": 32},
    "equal_captions": "positive",
}
RESNET = {"kind": "resnet", "width": 8, "depths": (1, 1), "heads": 4}


def tiny(*overrides: str) -> ConfigDict:
    """The tiny config on four devices, small enough to compile in seconds."""
    spec = f"{ROOT}/configs/clip.py:tiny"
    config = config_lib.load(spec, [*OVERRIDES, *overrides])
    # evaluators are most of the compile time, and not what is asked about
    config.evals = type(config.evals)()
    return config


def trained(workdir: pathlib.Path, *overrides: str) -> dict[str, np.ndarray]:
    """Parameters at the end of a run."""
    loop.run(tiny(*overrides), workdir)
    return tree.flatten(jax.device_get(restore.restore(workdir)[1].vars.params))


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> dict[str, np.ndarray]:
    return trained(tmp_path_factory.mktemp("dense"))


@pytest.mark.parametrize(
    "overrides",
    [
        ("--config.task.loss_impl=chunked",),
        ("--config.task.loss_impl=ring",),
        ("--config.task.loss_impl=ring", "--config.optim.accum=2"),
    ],
    ids=["chunked", "ring", "ring in two slices"],
)
def test_the_loop_trains_the_same_with_every_form(dense, overrides, tmp_path):
    got = trained(tmp_path, *overrides)
    assert got.keys() == dense.keys()
    for path, value in dense.items():
        np.testing.assert_allclose(got[path], value, atol=1e-5, err_msg=path)


def test_a_run_goes_on_with_another_form():
    before = setup.about(setup.build(tiny("--config.task.loss_impl=chunked")))
    restore.check_resume(setup.build(tiny("--config.task.loss_impl=ring")), before)
    other = setup.build(tiny("--config.task.loss_name=sigmoid"))
    with pytest.raises(UserError, match="loss_name was info_nce"):
        restore.check_resume(other, before)


def batch(rows: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 62, (rows, 8), dtype=np.int32)
    tokens[:, 0], tokens[:, 6], tokens[:, 7] = 62, 63, 0
    tokens[5] = tokens[2]
    image = rng.integers(0, 255, (rows, 32, 32, 3), dtype=np.uint8)
    return {"image": image, "tokens": tokens, "tokens_mask": tokens != 0}


def steps(task, layout: parallel.Layout, accum: int, count: int = 3) -> dict:
    """Parameters and metrics after a few steps of SGD."""
    tx = optax.sgd(0.05)
    variables = jax.device_get(jax.jit(task.init)(jax.random.key(0), batch()))
    state = TrainState(
        step=np.zeros((), np.int32),
        vars=variables,
        opt_state=tx.init(variables.params),
        ema=None,
        rng=jax.random.key(1),
    )
    state = jax.device_put(state, layout.shardings(state))
    one = functools.partial(
        step.train_step,
        task,
        tx,
        axis=layout.axis,
        rows=layout.row_sharding,
        accum=accum,
    )
    run = layout.compile_step(one, state)
    for _ in range(count):
        state, metrics = run(state, layout.load(batch()))
    found = {"params": state.vars.params, "extra": state.vars.extra}
    return tree.flatten(jax.device_get(found | {"metrics": metrics}))


@functools.cache
def whole() -> dict:
    return steps(base.build(FIELDS), parallel.Layout(devices=jax.devices()[:1]), 1)


@pytest.mark.parametrize(
    ("layout", "devices", "impl"),
    [
        ({}, 1, "dense"),
        pytest.param(
            {"mesh": parallel.MeshConfig(data=2, fsdp=2)},
            4,
            "ring",
            marks=pytest.mark.long,
        ),
        ({"mode": "pmap"}, 4, "dense"),
        pytest.param({"mode": "pmap"}, 4, "chunked", marks=pytest.mark.long),
    ],
)
def test_slices_of_a_batch_meet_each_other(layout: dict, devices: int, impl: str):
    task = base.build(FIELDS | {"loss_impl": impl, "loss_block": 3})
    got = steps(
        task,
        parallel.Layout(parallel.ParallelConfig(**layout), jax.devices()[:devices]),
        2,
    )
    assert got.keys() == whole().keys()
    for path, value in whole().items():
        if "_grad_sq" not in path:
            np.testing.assert_allclose(got[path], value, atol=1e-5, err_msg=path)


def test_evaluation_leaves_the_tiles_to_the_compiler():
    """Predict functions are given no `rows`; any number of pairs will do."""
    layout = parallel.Layout(devices=jax.devices()[:4])
    ctx, found = Ctx(rng=jax.random.key(0), step=jnp.int32(0)), {}
    for impl in ("dense", "ring"):
        task = base.build(FIELDS | {"loss_impl": impl, "loss_block": 3})
        variables = jax.jit(task.init)(jax.random.key(0), batch())
        loss = layout.compile_predict(
            functools.partial(task.predict()["loss"], ctx=ctx)
        )
        found[impl] = [loss(variables, batch(rows)) for rows in (16, 10)]
    for got, want in zip(found["ring"], found["dense"], strict=True):
        assert got.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_batch_norm_sees_a_slice():
    """The gradient is that of a loss whose slices are normalised apart."""
    task = base.build(FIELDS | {"image": RESNET})
    rows = jax.tree.map(jnp.asarray, batch())
    variables = jax.jit(task.init)(jax.random.key(0), rows)
    ctx = Ctx(rng=jax.random.key(0), step=jnp.int32(0), train=True)

    def apart(params):
        whole = variables._replace(params=params)
        halves = [
            task.embed(whole, {name: x[k::2] for name, x in rows.items()}, ctx)[0]
            for k in range(2)
        ]
        rows_of = jax.tree.map(lambda *x: jnp.stack(x, 1), *halves)
        embedded = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), rows_of)
        return task.loss_of(whole, embedded, rows, ctx)[0]

    want = tree.flatten(jax.jit(jax.grad(apart))(variables.params))
    accumulate = functools.partial(step._accumulate_coupled, task, ctx=ctx, accum=2)
    grads, _, _ = jax.jit(accumulate)(variables, rows)
    for path, value in tree.flatten(grads).items():
        np.testing.assert_allclose(value, want[path], atol=1e-5, err_msg=path)


CLASSIFIER = {"name": "classifier", "classes": 3}
CLASSIFIER |= {key: FIELDS[key] for key in ("image_size", "image")}


@pytest.mark.parametrize("fields", [FIELDS, CLASSIFIER], ids=["clip", "classifier"])
def test_running_averages_move_once_an_update(fields):
    """By the mean over the slices, each of which is normalised by itself."""
    task = base.build(fields | {"image": RESNET})
    rows = batch(8) | {"label": np.arange(8, dtype=np.int32) % 3}
    variables = jax.jit(task.init)(jax.random.key(0), rows)
    ctx = Ctx(rng=jax.random.key(0), step=jnp.int32(0), train=True)
    extras = [
        jax.jit(task.loss)(variables, {k: x[i::2] for k, x in rows.items()}, ctx)[1][0]
        for i in range(2)
    ]
    want = jax.tree.map(lambda *x: np.mean(x, axis=0), *extras)
    how = step._accumulate_coupled if task.couples_rows else step._accumulate
    accumulate = functools.partial(how, task, ctx=ctx, accum=2)
    _, got, _ = jax.jit(accumulate)(variables, rows)
    assert jax.tree.leaves(got)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), got, want)


@pytest.mark.parametrize(
    ("fields", "high"),
    [
        (FIELDS, math.log(100)),
        (FIELDS | {"loss_name": "sigmoid", "max_scale": 20.0}, math.log(20)),
        (FIELDS | {"loss_name": "sigmoid", "max_scale": 0.0}, math.log(10) + 5),
        (CLASSIFIER, math.log(100)),
    ],
    ids=["clip", "siglip", "siglip unbounded", "classifier"],
)
def test_the_stored_scale_never_oversteps_its_bounds(fields, high):
    """Nor does its average: what is exported is what was computed with."""
    task = base.build(fields)
    rows = batch(8) | {"label": np.arange(8, dtype=np.int32) % 3}
    scales = []
    for jump in (5.0, -50.0):
        tx = optax.stateless(
            lambda grads, _, jump=jump: jax.tree.map(
                lambda g: jnp.full_like(g, jump if g.ndim == 0 else 0.0), grads
            )
        )
        variables = jax.jit(task.init)(jax.random.key(0), rows)
        state = TrainState(
            step=jnp.int32(0),
            vars=variables,
            opt_state=tx.init(variables.params),
            ema=variables.params,
            rng=jax.random.key(1),
        )
        one = functools.partial(step.train_step, task, tx, ema_decay=0.9)
        state, _ = jax.jit(one)(state, rows)
        scales.append(float(state.vars.params["logit_scale"]))
        average, start = (
            float(p["logit_scale"]) for p in (state.ema, variables.params)
        )
        assert average == pytest.approx(start + 0.9 * (scales[-1] - start), abs=1e-5)
    low = math.log(10) - 50 if fields.get("max_scale") == 0 else 0.0
    assert scales == pytest.approx([high, low])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"loss_impl": "rings"}, "loss_impl is 'rings': use dense or chunked or ring"),
        ({"loss_block": 0}, "loss_block is 0"),
        ({"loss_block": "big"}, "config.task.loss_block"),
    ],
)
def test_bad_fields(fields: dict, what: str):
    with pytest.raises(UserError, match=what):
        base.build(FIELDS | fields)
