"""Deep hashing's task: its loss in numpy, what it learns, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import hashing as losses
from mmjax.state import Ctx
from mmjax.tasks import base

CTX = Ctx(rng=jax.random.key(3), step=jnp.zeros((), jnp.int32), train=True)
LINEAR = {"kind": "mlp", "hidden": ()}


def task_of(**more):
    return base.build({"name": "hashing", "bits": 8, "encoder": LINEAR, **more})


def batch_of(n=24, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 4
    centre = 3 * np.eye(4, dtype=np.float32)[label]
    views = [
        np.float32(centre @ np.random.default_rng(i).normal(size=(4, d)))
        + 0.1 * np.float32(rng.normal(size=(n, d)))
        for i, d in enumerate((6, 5))
    ]
    return {"view_a": views[0], "view_b": views[1], "label": label.astype(np.int32)}


@pytest.mark.parametrize("similar", ["label", "pair", "labels"])
def test_the_loss_is_its_parts_of_linear_outputs(similar):
    task, batch = task_of(quantisation=0.3, balance=0.2), batch_of()
    same = batch["label"][:, None] == batch["label"]
    if similar == "pair":
        task, same = task_of(quantisation=0.3, balance=0.2, similar="pair"), np.eye(24)
    if similar == "labels":
        batch["labels"] = np.eye(4, dtype=bool)[batch.pop("label")]
    variables = task.init(jax.random.key(0), batch)
    loss, (_, metrics) = task.loss(variables, batch, CTX)
    a, b = (
        batch[v] @ variables.params[f"encoders_{v}"]["layers_0"]["kernel"]
        for v in task.views
    )
    want = losses.pairwise_likelihood(a, b, same.astype(bool))
    assert float(metrics["likelihood"]) == pytest.approx(float(want), abs=1e-5)
    want += 0.3 * losses.quantisation(a, b) + 0.2 * losses.imbalance(a, b)
    assert float(loss) == pytest.approx(float(want), abs=1e-5)
    codes = task.predict()["codes"](variables, batch, CTX)
    np.testing.assert_allclose(codes["view_b"], b, atol=1e-5)


def test_rows_without_a_class_are_similar_to_themselves_alone():
    task, batch = task_of(), batch_of(4)
    batch["label"][:] = -1
    np.testing.assert_array_equal(task._similar(batch, 4, CTX), np.eye(4))


def test_descent_makes_codes_of_classes_agree():
    task, batch = task_of(), batch_of()
    params = task.init(jax.random.key(0), batch).params

    @jax.jit
    def step(params):
        grads = jax.grad(lambda p: task.loss(base.Vars(params=p), batch, CTX)[0])(
            params
        )
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    for _ in range(100):
        params = step(params)
    codes = task.predict()["codes"](base.Vars(params=params), batch, CTX)
    a, b = (np.asarray(x) > 0 for x in codes.values())
    apart = (a[:, None] != b).mean(-1)
    same = batch["label"][:, None] == batch["label"]
    assert apart[same].mean() < 0.1 < 0.3 < apart[~same].mean()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bits": 12}, "bits is 12: codes fill bytes, use 8 or 16"),
        ({"bits": 0}, "bits is 0: codes fill bytes, use 8 or 16"),
        ({"views": ("a",)}, "views are .*name two fields"),
        ({"views": ("a", "b", "c")}, "views are .*name two fields"),
        ({"encoders": {"view_c": {}}}, "'view_c', which is no view"),
        ({"similar": "labels"}, "similar"),
        ({"balance": -1.0}, "balance"),
    ],
)
def test_config_errors_say_what_to_change(more, message):
    with pytest.raises(UserError, match=message):
        task_of(**more)


def test_data_that_do_not_fit():
    spec = {"kind": "text", "shape": (4,), "dtype": "int32"}
    with pytest.raises(UserError, match="view_a is int32.*use kind vector"):
        task_of().check({"view_a": spec, "view_b": spec})
    batch = batch_of() | {"view_b_present": np.ones(24, bool)}
    with pytest.raises(UserError, match="view_b is optional.*set optional to False"):
        jax.eval_shape(task_of().init, jax.random.key(0), batch)
