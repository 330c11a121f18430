"""Fusion's task: losses against numpy, folds that are held out, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import crf
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import setup

CTX = Ctx(rng=jax.random.key(3), step=jnp.zeros((), jnp.int32), train=True)
ROWS, STEPS = 6, 3


def task_of(**more):
    given = {"name": "fusion", "inputs": ("a", "b"), "outputs": 3}
    linear = {"block": {"kind": "early", "hidden": ()}, "columns": 0}
    return base.build({**given, **linear, **more})


def batch_of(steps=False, seed=0):
    rng = np.random.default_rng(seed)
    shape = (ROWS, STEPS) if steps else (ROWS,)
    batch = {k: np.float32(rng.normal(size=(*shape, 2))) for k in "ab"}
    batch["label"] = rng.integers(3, size=shape).astype(np.int32)
    batch["index"] = np.arange(ROWS, dtype=np.int32)
    if steps:
        batch["label"] = np.float32(batch["label"])[..., None]
        mask = np.arange(STEPS) < np.array([3, 2, 3, 1, 3, 2])[:, None]
        batch |= {f"{name}_mask": mask for name in ("a", "b", "label")}
    return batch


def start(task, batch):
    return jax.jit(task.init)(jax.random.key(0), batch)


def value(task, variables, batch):
    def loss(params):
        return task.loss(variables._replace(params=params), batch, CTX)[0]

    return jax.jit(jax.value_and_grad(loss))(variables.params)


def linear(params, batch, model):
    p = jax.tree.map(lambda x: np.asarray(x)[model], params)["block"]["head"]
    x = np.concatenate([batch["a"], batch["b"]], -1)
    return x @ p["kernel"] + p["bias"]


def cross_entropy(scores, label):
    log = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    return -np.take_along_axis(log, label[..., None].astype(int), -1)[..., 0]


def test_the_loss_is_cross_entropy_summed_over_models():
    task, batch = task_of(members=2), batch_of()
    variables = start(task, batch)
    loss, (_, metrics) = jax.jit(task.loss)(variables, batch, CTX)
    each = [
        cross_entropy(linear(variables.params, batch, m), batch["label"]).mean()
        for m in range(2)
    ]
    assert each[0] != pytest.approx(each[1])
    assert float(loss) == pytest.approx(sum(each), rel=1e-5)
    assert float(metrics["model_loss"]) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_fold_is_held_out_and_answers():
    task, batch = task_of(members=2, folds=3), batch_of()
    variables = start(task, batch)
    other = {**batch, "a": batch["a"].copy()}
    other["a"][batch["index"] % 3 == 1] += 5.0
    one, two = (value(task, variables, b)[1]["block"]["head"] for b in (batch, other))
    for model in range(6):
        same = np.array_equal(one["kernel"][model], two["kernel"][model])
        assert same == (model % 3 == 1)
    scores = jax.jit(task.predict()["scores"])(variables, batch, CTX)
    assert scores.shape == (ROWS, 2, 1, 3)
    for row, member in np.ndindex(ROWS, 2):
        want = linear(variables.params, batch, member * 3 + row % 3)[row]
        np.testing.assert_allclose(scores[row, member, 0], want, atol=1e-5)


def test_models_learn_as_if_they_were_alone():
    many, alone, batch = task_of(members=2), task_of(), batch_of()
    variables = start(many, batch)
    _, grads = value(many, variables, batch)
    for model in range(2):
        own = jax.tree.map(lambda x, m=model: x[m : m + 1], variables)
        _, want = value(alone, own, batch)
        got = jax.tree.map(lambda x, m=model: x[m : m + 1], grads)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want
        )


def test_steps_count_alike_and_padding_does_not():
    task, batch = task_of(per="step"), batch_of(steps=True)
    batch["label"][2, 0] = -1  # one that nobody labelled
    variables = start(task, batch)
    loss, (_, metrics) = jax.jit(task.loss)(variables, batch, CTX)
    label = batch["label"][..., 0]
    counts = batch["label_mask"] & (label >= 0)
    blank = {k: batch[k] * batch["a_mask"][..., None] for k in "ab"}
    scores = linear(variables.params, blank, 0)
    nll = cross_entropy(scores, np.maximum(label, 0)) * counts
    assert float(loss) == pytest.approx((nll.sum(1) / STEPS).mean(), rel=1e-5)
    right = (scores.argmax(-1) == label) & counts
    want = (right.sum(1) / counts.sum(1)).mean()
    assert float(metrics["accuracy"]) == pytest.approx(want)


def test_a_chain_is_the_random_field():
    task, batch = task_of(per="step", chain=True), batch_of(steps=True)
    variables = start(task, batch)
    move = np.float32(np.random.default_rng(1).normal(size=(1, 3, 3)))
    variables.params["transition"] = jnp.asarray(move)
    mask, label = batch["label_mask"], batch["label"][..., 0].astype(int)
    scores = linear(variables.params, {k: batch[k] * mask[..., None] for k in "ab"}, 0)
    loss, _ = jax.jit(task.loss)(variables, batch, CTX)
    want = jax.jit(crf.nll)(scores, label, mask, move[0]).mean() / STEPS
    assert float(loss) == pytest.approx(float(want), rel=1e-5)
    answers = jax.jit(task.predict()["answers"])(variables, batch, CTX)[:, 0]
    best = jax.jit(crf.viterbi)(scores, mask, move[0])
    np.testing.assert_array_equal(answers[mask], best[mask])
    got = jax.jit(task.predict()["scores"])(variables, batch, CTX)[:, 0]
    np.testing.assert_allclose(got, scores, atol=1e-5)


def test_numbers_and_what_is_absent():
    task = task_of(objective="numbers", outputs=2, target="y")
    batch = batch_of() | {"y": np.float32(np.random.default_rng(2).normal(size=(6, 2)))}
    batch["a_present"] = np.arange(ROWS) > 2
    variables = start(task, batch)
    loss, _ = jax.jit(task.loss)(variables, batch, CTX)
    blank = {**batch, "a": batch["a"] * batch["a_present"][:, None]}
    want = np.square(linear(variables.params, blank, 0) - batch["y"]).mean()
    assert float(loss) == pytest.approx(want, rel=1e-5)


def test_noise_is_drawn_by_row_and_in_training_alone():
    task, batch = task_of(noise={"a": 0.5}), batch_of()
    variables = start(task, batch)
    clean, noisy, again = (
        float(jax.jit(task.loss)(variables, batch, ctx)[0])
        for ctx in (CTX.replace(train=False), CTX, CTX)
    )
    assert clean != noisy == again
    plain = jax.jit(task_of().loss)(variables, batch, CTX)[0]
    assert clean == pytest.approx(float(plain))


def spec_of(**more):
    vector = {"kind": "vector", "shape": (4,), "dtype": "float32"}
    label = {"kind": "label", "shape": (), "dtype": "int32", "class_names": ("x",) * 3}
    return {"a": vector, "b": vector, "label": label, **more}


def series(length, width=4):
    return {"kind": "sequence", "shape": (length, width), "dtype": "float32"}


STEP = {"per": "step"}
MEMORY = {"block": {"kind": "memory"}}


@pytest.mark.parametrize(
    ("more", "spec", "message"),
    [
        (
            {},
            {"a": {**series(5), "absent": True}},
            "a has .*no training record its value",
        ),
        (
            {},
            {"a": {"kind": "image", "shape": (8, 8, 3), "dtype": "uint8"}},
            r"a is uint8 \(8, 8, 3\), of kind 'image'.*use kind vector",
        ),
        (MEMORY, {"a": series(5)}, r"b has rows of \(4,\).*block memory takes series"),
        (
            MEMORY,
            {"a": series(5), "b": series(7)},
            "series of a 5, b 7 steps, and the block memory takes series of one length",
        ),
        (
            STEP,
            {"a": series(5), "b": series(5), "label": series(7, 1)},
            "series of a 5, b 5, label 7 steps, and label has a label for every step",
        ),
        (STEP, {"label": series(7, 1)}, "per is 'step', and a, b have no steps"),
        (STEP, {"a": series(5)}, r"label has rows of \(\), .*they are \(5, 1\)"),
        ({}, {"label": series(7, 1)}, r"label has rows of \(7, 1\).*they are \(\)"),
        ({"outputs": 2}, {}, "outputs is 2, and the data have 3 classes: set it to 3"),
    ],
)
def test_data_that_do_not_fit(more, spec, message):
    task_of().check(spec_of())
    with pytest.raises(UserError, match=message):
        task_of(**more).check(spec_of(**spec))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"inputs": ("a", "a")}, r"inputs are \('a', 'a'\): name one field or more"),
        ({"chain": True}, "chain is True, objective 'classes' and per 'record'"),
        ({"noise": {"c": 1.0}}, "noise is 1.0 of 'c': use 0 or more, of one of a, b"),
        ({"folds": 0}, "folds is 0"),
        ({"block": {"kind": "gate"}}, "block.kind is 'gate'; did you mean 'gated'"),
        ({"block": {"kind": "gated", "widht": 3}}, "unknown key 'widht'; did you mean"),
        (
            {"block": {"kind": "late", "rule": "product"}, "objective": "numbers"},
            "block.rule is 'product' and objective 'numbers'",
        ),
    ],
)
def test_configs_that_do_not_fit(more, message):
    with pytest.raises(UserError, match=message):
        task_of(**more)


def test_a_modality_that_no_record_has_ends_before_it_is_compiled(tmp_path):
    rng = np.random.default_rng(0)
    left = rng.normal(size=(20, 3)).astype("f4")
    np.savez(tmp_path / "x.npz", left=left, label=np.arange(20) % 2)
    given = [f"data.train=npz:{tmp_path}/x.npz", "data.fields.left.kind=vector"]
    given += ["data.fields.right.kind=vector", "data.fields.right.optional=True"]
    given += ["evals.fusion.source=", "evals.fits.source="]
    config = config_lib.load("fusion:tiny", [])
    for name in ("left", "right"):
        del config.unlock().data.fields[name]
    config = config_lib.override(config, [f"--config.{text}" for text in given])
    for width in (0, 3):
        wide = f"--config.data.fields.right.width={width}"
        message = rf"right has a row of \({width},\), and no training record its value"
        with pytest.raises(UserError, match=message):
            setup.build(config_lib.override(config, [wide]))
