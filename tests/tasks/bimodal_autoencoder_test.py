"""The autoencoder against numpy, its inputs, and the belief net that it unrolls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax.errors import UserError
from mmjax.models import boltzmann
from mmjax.state import Ctx
from mmjax.tasks import base

SOUND = {"visible": "gaussian", "units": 6, "widths": (5,)}
LIPS = {"visible": "gaussian", "units": 4, "widths": (3,)}
BOTH = {"sound": SOUND, "lips": LIPS}


def make(name="bimodal_autoencoder", pathways=BOTH, **more):
    return base.build({"name": name, "pathways": pathways, "joint": 7} | more)


def rows(count=16, seed=0):
    rng = np.random.default_rng(seed)
    sound, lips = rng.normal(size=(count, 3, 2)), rng.normal(size=(count, 4))
    return {"sound": sound.astype(np.float32), "lips": lips.astype(np.float32)}


def ctx():
    return Ctx(rng=jax.random.key(7), step=jnp.int32(0), train=True)


def by_hand(params, batch, given):
    """(code, rebuilt by field) of sigmoid layers and Gaussian means."""
    p, sigmoid = jax.tree.map(np.asarray, params), scipy.special.expit
    top = p["bias"]["joint"]
    for name in BOTH:
        x = batch[name].reshape(len(batch[name]), -1) * (name in given)
        up = p["up"]["weight"][name][f"{name}1"]
        hidden = sigmoid(x @ up + p["up"]["bias"][f"{name}1"])
        top = top + hidden @ p["weight"][f"{name}1"]["joint"]
    code, out = sigmoid(top), {}
    for name in BOTH:
        down = code @ p["weight"][f"{name}1"]["joint"].T + p["bias"][f"{name}1"]
        out[name] = sigmoid(down) @ p["weight"][name][f"{name}1"].T + p["bias"][name]
    return code, out


def drawn(task, batch):
    """Variables of which nothing is zero or shared."""
    variables, rng = task.init(jax.random.key(0), batch), np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), variables.params
    )
    return variables._replace(params=params)


@pytest.mark.parametrize("given", [("sound", "lips"), ("sound",), ("lips",)])
def test_codes_and_what_is_rebuilt(given):
    task, batch = make(), rows()
    variables = drawn(task, batch)
    part = {name: batch[name] for name in given}
    code, out = by_hand(variables.params, batch, given)
    got = task.predict()["codes"](variables, part, ctx())
    np.testing.assert_allclose(got, code, atol=1e-5)
    rebuilt = task.predict()["rebuilt"](variables, part, ctx())
    for name, x in out.items():
        np.testing.assert_allclose(rebuilt[name], x, atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [((), ()), ((("lips",),), ()), ((("lips",),), ("lips",))],
)
def test_loss_is_the_error_of_the_targets_over_drawn_inputs(inputs, targets):
    task, batch = make(inputs=inputs, targets=targets), rows(count=600)
    variables = drawn(task, batch)
    loss, (_, metrics) = task.loss(variables, batch, ctx())
    errors = {}
    for way in task.ways:
        _, out = by_hand(variables.params, batch, way)
        for name in BOTH:
            x = batch[name].reshape(600, -1)
            errors[way, name] = np.square(out[name] - x).mean(1)
    assert set(metrics) == set(targets or BOTH)
    for name, value in metrics.items():
        parts = np.array([errors[way, name] for way in task.ways])
        spread = parts.std() * 4 / 600**0.5
        assert abs(parts.mean() - value) <= (spread if len(parts) > 1 else 1e-4)
    assert loss == pytest.approx(float(sum(metrics.values())), rel=1e-6)


def test_the_unrolled_belief_net_rebuilds_as_the_net_does():
    batch = rows()
    net = make("boltzmann", kind="dbn", persistent=False)
    task = make()
    variables = drawn(net, batch)
    fresh = task.init(jax.random.key(0), batch)
    shapes = [jax.tree.map(jnp.shape, v.params) for v in (variables, fresh)]
    assert shapes[0] == shapes[1]
    unrolled = fresh._replace(params=variables.params)
    flat = {name: x.reshape(len(x), -1) for name, x in batch.items()}
    states = net.model.infer(variables.params, flat)
    joint = boltzmann.means(net.model.top, variables.params, states, ["joint"])
    code = task.predict()["codes"](unrolled, batch, ctx())
    np.testing.assert_allclose(code, joint["joint"], atol=1e-6)


def test_a_shallow_one_has_one_layer_and_absent_rows_do_not_count():
    flat = {name: part | {"widths": ()} for name, part in BOTH.items()}
    task = make(pathways=flat)
    batch = rows() | {"lips_present": np.arange(16) < 8}
    with pytest.raises(UserError, match="no rule for rows without it"):
        task.init(jax.random.key(0), batch)
    flat["lips"]["missing"] = "zeros"
    task = make(pathways=flat)
    variables = task.init(jax.random.key(0), batch)
    assert set(variables.params) == {"bias", "weight"}
    error = task.predict()["loss"](variables, batch, ctx())["lips"]
    assert (np.asarray(error)[8:] == 0).all() and (np.asarray(error)[:8] > 0).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"inputs": (("lip",),)}, "inputs has 'lip', which is no pathway.*lips"),
        ({"targets": ("face",)}, "targets has 'face'"),
        ({"inputs": ((),)}, "a set names one field or more"),
        ({"joint": 0}, "joint"),
    ],
)
def test_refusals(more, message):
    with pytest.raises(UserError, match=message):
        make(**more)


def test_a_missing_field_is_never_inferred():
    spec = {n: {"kind": "vector", "shape": (p["units"],)} for n, p in BOTH.items()}
    task = make(pathways=BOTH | {"lips": LIPS | {"missing": "infer"}})
    with pytest.raises(UserError, match="missing is 'infer': what is absent is zeros"):
        task.check(spec)
