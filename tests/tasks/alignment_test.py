"""Towers that learn to align drawn warps, and refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.data.fields import base as fields_base
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.evaluators import alignment as evaluator
from mmjax.models.frame_tower import FrameTower, moved
from mmjax.state import Ctx
from mmjax.tasks import alignment


def test_padding_is_not_seen():
    tower = FrameTower(embed_dim=3, width=8, depth=2, reach=2)
    rng = np.random.default_rng(0)
    x, mask = jnp.asarray(rng.normal(size=(1, 9, 2))), jnp.arange(9)[None] < 6
    variables = jax.jit(tower.init)(jax.random.key(0), x, mask)
    run = jax.jit(lambda x: tower.apply(variables, x, mask)[0])
    rows = run(x)
    np.testing.assert_array_equal(run(x.at[:, 6:].set(9.0))[:6], rows[:6])
    same = [
        bool((run(x.at[:, frame].set(9.0))[0] == rows[0]).all()) for frame in range(6)
    ]
    assert same == [False] * 5 + [True]  # two blocks of reach 2
    np.testing.assert_array_equal(moved(x, 2)[0, :7], x[0, 2:])
    np.testing.assert_array_equal(moved(x, -1)[0, 1:], x[0, :-1])


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    lengths = np.array([6, 5, 6, 4])
    mask = np.arange(6) < lengths[:, None]
    made = {"first": rng.normal(size=(4, 6, 2)), "second": rng.normal(size=(4, 6, 3))}
    arrays = {k: v.astype(np.float32) for k, v in made.items()}
    truth = np.minimum(np.arange(6), lengths[::-1, None] - 1).astype(np.float32)
    masks = {"first_mask": mask, "second_mask": mask[::-1]}
    return arrays | masks | {"truth": truth[..., None]}


@pytest.mark.parametrize("name", ["tcc", "soft_dtw", "clock"])
def test_losses_fall(name, batch):
    tower = {"width": 16, "depth": 1}
    how = {"first": tower, "second": tower, "loss_name": name}
    task = alignment.Task(embed_dim=4, **how)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    ctx = Ctx(rng=jax.random.key(1), step=jnp.zeros((), jnp.int32), train=True)

    @jax.jit
    def step(variables):
        def loss(params):
            return task.loss(variables._replace(params=params), batch, ctx)[0]

        value, grads = jax.value_and_grad(loss)(variables.params)
        moved = jax.tree.map(lambda p, g: p - 0.05 * g, variables.params, grads)
        return variables._replace(params=moved), value

    values = []
    for _ in range(30):
        variables, value = step(variables)
        values.append(float(value))
    assert np.isfinite(values).all() and values[-1] < 0.8 * values[0]
    rows = jax.jit(task.predict()["frames"])(variables, batch, ctx)
    np.testing.assert_allclose(np.square(rows["first"]).sum(-1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_name": "dtw"}, "loss_name is 'dtw': use tcc, soft_dtw or clock"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"margin": -1.0}, "margin -1.0"),
    ],
)
def test_bad_fields(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(alignment.Task(), **change)


def test_bad_data():
    task = alignment.Task()
    spec = {name: {"kind": "sequence", "shape": (9, 2)} for name in alignment.NAMES}
    task.check(spec)
    with pytest.raises(UserError, match="clock, and the data have no truth"):
        alignment.Task(loss_name="clock").check(spec)
    spec["second"]["shape"] = (2, 4)
    with pytest.raises(UserError, match="fields.second has rows of .2, 4.*3 frames"):
        task.check(spec)
    with pytest.raises(UserError, match="config.task.first.*depht.*depth"):
        functools.cached_property.__get__(
            alignment.Task.model, alignment.Task(first={"depht": 1})
        )


def test_the_evaluator_knows_the_truth():
    rng = np.random.default_rng(2)
    second = rng.normal(size=(30, 4))
    truth = np.linspace(4, 24, 41)
    first = second[truth.round().astype(int)]
    found = evaluator.errors([(first, second, truth)], open_ends=True)[0]
    rounding = np.abs(truth - truth.round()).mean()
    assert found[:2] == pytest.approx([rounding, rounding])
    assert found[2] == pytest.approx(np.abs(truth - np.linspace(0, 29, 41)).mean())
    assert found[3] < 0.01
    closed = evaluator.errors([(first, second, truth)], open_ends=False)[0]
    assert closed[0] > found[0]


def drawn(split, count):
    """A batch of drawn curves, as the fields make it."""
    source = open_source(f"warps:{split}?count={count}&frames=16&shift=0.5")
    batch = {}
    for name, length in (("first", 16), ("second", 12), ("truth", 16)):
        rows = [fields_base.padded(source[i][name], length) for i in range(count)]
        batch[name], batch[f"{name}_mask"] = map(np.stack, zip(*rows, strict=True))
    return batch


@pytest.mark.long
def test_it_learns_to_align_drawn_curves():
    """Better than the diagonal, on curves that it did not see."""
    tower = {"width": 32, "depth": 2, "reach": 1}
    how = {"first": tower, "second": tower, "loss_name": "clock"}
    task, batch, held = alignment.Task(**how), drawn("train", 512), drawn("val", 64)
    ctx = Ctx(rng=jax.random.key(1), step=jnp.zeros((), jnp.int32), train=True)
    variables, tx = jax.jit(task.init)(jax.random.key(0), batch), optax.adam(3e-3)

    @jax.jit
    def step(variables, slots, rows):
        def loss(params):
            return task.loss(variables._replace(params=params), rows, ctx)[0]

        updates, slots = tx.update(jax.grad(loss)(variables.params), slots)
        params = optax.apply_updates(variables.params, updates)
        return variables._replace(params=params), slots

    slots = tx.init(variables.params)
    for number in range(200):
        at = np.random.default_rng(number).integers(512, size=32)
        rows = {k: v[at] for k, v in batch.items()}
        variables, slots = step(variables, slots, rows)
    out = jax.jit(task.predict()["frames"])(variables, held, ctx)
    pairs = []
    for row in range(64):
        masks = [held[f"{name}_mask"][row] for name in alignment.NAMES]
        x_nd, y_md = (
            np.asarray(out[name][row])[mask]
            for name, mask in zip(alignment.NAMES, masks, strict=True)
        )
        pairs.append((x_nd, y_md, held["truth"][row, : len(x_nd), 0]))
    found, _, diagonal, _ = evaluator.errors(pairs, open_ends=True).mean(0)
    assert found < 0.8 * diagonal, (found, diagonal)
