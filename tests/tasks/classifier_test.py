"""The classifier's loss against numpy, its rows without a class, and learning."""

import batch_fields
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from mmjax.data import pipeline
from mmjax.data.fields import image
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.state import Ctx, TrainState
from mmjax.tasks import base, classifier
from mmjax.train import step

TINY = {"kind": "conv", "width": 8, "depths": (1, 1), "groups": 4}


def make(classes=6, **more):
    fields = {"name": "classifier", "classes": classes, "image_size": 16, "image": TINY}
    return base.build(fields | more)


def batch(labels, size=16):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (len(labels), size, size, 3), np.uint8)
    return {"image": image, "label": np.asarray(labels, np.int32)}


def variables_of(task, rows, seed=1):
    made = jax.jit(task.init)(jax.random.key(0), rows)
    kernel = made.params["head"]["kernel"]
    noise = jax.random.normal(jax.random.key(seed), kernel.shape)
    head = {**made.params["head"], "kernel": noise}
    return made._replace(params={**made.params, "head": head})


def ctx(train=False):
    return Ctx(rng=jax.random.key(0), step=jnp.zeros((), jnp.int32), train=train)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_matches_numpy_and_rows_without_a_class_count_nothing(smoothing):
    task, rows = make(smoothing=smoothing), batch([3, 0, -1, 5])
    variables = variables_of(task, rows)
    predict = task.predict()
    logits = jax.jit(predict["logits"])(variables, rows, ctx())
    logits = np.asarray(logits, np.float64)
    log_p = scipy.special.log_softmax(logits, axis=1)
    target = np.full((4, 6), smoothing / 6) + (1 - smoothing) * np.eye(6)[rows["label"]]
    wanted = -(target * log_p).sum(1) * [1, 1, 0, 1]
    hits = (logits.argmax(1) == rows["label"]) * [1, 1, 0, 1]
    loss, (_, metrics) = jax.jit(task.loss)(variables, rows, ctx(train=True))
    assert loss == pytest.approx(wanted.sum() / 4, rel=1e-5)
    assert metrics["accuracy"] == hits.sum() / 4
    per_row = jax.jit(predict["loss"])(variables, rows, ctx())
    np.testing.assert_allclose(per_row["loss"], wanted, rtol=1e-5)
    np.testing.assert_array_equal(per_row["accuracy"], hits)


def test_a_label_beyond_the_classes_is_no_silent_success():
    task, rows = make(), batch([0, 6])
    loss, _ = jax.jit(task.loss)(variables_of(task, rows), rows, ctx(train=True))
    assert np.isnan(loss)


def test_refuses():
    with pytest.raises(UserError, match="config.task: classes is 1"):
        make(classes=1)
    with pytest.raises(UserError, match="smoothing is 1"):
        make(smoothing=1.0)
    with pytest.raises(
        UserError, match="image.size is 32, and the model takes images of 16"
    ):
        make().check({"image": {"shape": (32, 32, 3)}, "label": {}})
    rows = {"image": batch([0, 1])["image"]}
    variables = jax.eval_shape(make().init, jax.random.key(0), rows)
    with pytest.raises(UserError, match="no labels"):
        jax.eval_shape(make().loss, variables, rows, ctx())


def test_learns_classes_of_shapes():
    source = open_source("shapes:train?size=16&count=64&objects=1")
    cfg = image.Field(size=16, mode="squash", train_scale=(1.0, 1.0))
    [rows] = pipeline.eval_batches(
        source, batch_fields.of(source, None, cfg), batch_size=64
    )
    task = make(classes=64)
    assert isinstance(task, classifier.Task)
    rows = {k: rows[k] for k in ("image", "label")}
    made, tx = jax.jit(task.init)(jax.random.key(0), rows), optax.adam(1e-2)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        vars=made,
        opt_state=tx.init(made.params),
        ema=None,
        rng=jax.random.key(0),
    )
    train = jax.jit(lambda state, rows: step.train_step(task, tx, state, rows))
    for _ in range(200):
        state, metrics = train(state, rows)
    assert metrics["loss"] < 0.5 * np.log(64) and metrics["accuracy"] > 0.7
